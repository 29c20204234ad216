import platform
import subprocess
import sys

import pytest

# Allocates and frees 128 MB in a thread five times, and prints the page faults of the last three.
PROBE = """
import resource, sys, threading
import numpy as np
from common import malloc_tuning

if sys.argv[1] == "tuned":
    malloc_tuning.disable_trimming()

def allocate_and_free():
    for _ in range(5):
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        np.ones(16 << 20)

faults = []
thread = threading.Thread(target=allocate_and_free)
thread.start()
thread.join()
print(faults[-1] - faults[1])
"""


def page_faults(mode):
    command = [sys.executable, "-c", PROBE, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="has no effect without glibc")
def test_freed_memory_is_reused_in_threads():
    assert page_faults("tuned") < page_faults("default") / 10
