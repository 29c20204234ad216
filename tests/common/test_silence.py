import os

import pytest

from common import silence


def test_stderr_is_discarded_inside_only(capfd):
    with silence.silence_stderr():
        os.write(2, b"noise")
    os.write(2, b"a warning")
    assert capfd.readouterr().err == "a warning"


def test_exception_passes(capfd):
    with pytest.raises(ImportError, match="no such module"), silence.silence_stderr():
        raise ImportError("no such module")
    os.write(2, b"its traceback")
    assert capfd.readouterr().err == "its traceback"
