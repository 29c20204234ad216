"""Importing common.tf, in new processes."""

import os
import subprocess
import sys

CODE = """
from common.tf import keras, tf
import os
print(os.environ["TF_CPP_MIN_LOG_LEVEL"], keras.backend.backend(), tf.executing_eagerly())
"""


def run(**environment):
    return subprocess.run(
        [sys.executable, "-c", CODE],
        env={name: v for name, v in os.environ.items() if not name.startswith("TF_")} | environment,
        capture_output=True,
        text=True,
    )


def test_import_writes_nothing_to_stderr():
    completed = run(CUDA_VISIBLE_DEVICES="")
    assert (completed.stdout, completed.stderr) == ("2 tensorflow True\n", "")


def test_log_level_of_the_user_is_kept():
    assert run(TF_CPP_MIN_LOG_LEVEL="3").stdout.startswith("3 ")
