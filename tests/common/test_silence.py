import os

import pytest

from common import silence


def test_nothing_reaches_stderr_inside_and_all_of_it_after(capfd):
    with silence.silence_stderr():
        os.write(2, b"a greeting")
    os.write(2, b"a warning")
    assert capfd.readouterr().err == "a warning"


def test_an_exception_passes(capfd):
    with pytest.raises(ImportError, match="no such module"), silence.silence_stderr():
        raise ImportError("no such module")
    os.write(2, b"its traceback")
    assert capfd.readouterr().err == "its traceback"
