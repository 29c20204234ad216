"""Importing common.tf, in new processes."""

import os
import subprocess
import sys

CODE = """
import os
import clusterloss_tf
from common.tf import keras, tf
print(os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["TF_ENABLE_ONEDNN_OPTS"])
print(keras.backend.backend(), tf.executing_eagerly())
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
    assert (completed.stdout, completed.stderr) == ("2 1\ntensorflow True\n", "")


def test_environment_of_the_user_is_kept():
    completed = run(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")
    assert completed.stdout.startswith("3 0\n"), completed.stderr
