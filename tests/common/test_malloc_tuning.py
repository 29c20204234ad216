import platform
import subprocess
import sys

import pytest

# Makes and frees 128 MB in another thread, and prints how many pages the last three of five cost.
PROBE = """
import resource, sys, threading
import numpy as np
from common import memory

if sys.argv[1] == "keep":
    memory.keep_freed()

def make_and_free():
    for _ in range(5):
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        np.ones(16 << 20)

faults = []
thread = threading.Thread(target=make_and_free)
thread.start()
thread.join()
print(faults[-1] - faults[1])
"""


def faults(word):
    command = [sys.executable, "-c", PROBE, word]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
def test_what_was_freed_is_used_again_also_in_a_thread():
    assert faults("keep") < faults("as it is") / 10
