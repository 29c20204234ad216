import sys

import pytest

from common import cli


@pytest.fixture
def refused(monkeypatch, capsys):
    """A function that runs a command in this process and returns its one-line error."""

    def call(main, *argv):
        monkeypatch.setattr(sys, "argv", ["command", "--processes", "1", *map(str, argv)])
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
            patch.setattr(cli.signal, "signal", lambda *_: None)  # pytest keeps its own handlers
            patch.setattr(cli.os, "register_at_fork", lambda **_: None)
            cli.main(main)
        output = capsys.readouterr()
        lines = [line for line in output.err.splitlines() if line.startswith("error: ")]
        assert (stop.value.code, output.out, len(lines)) == (2, "", 1)
        return lines[0]

    return call
