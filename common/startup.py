"""What an entry script does before it imports a framework."""

import importlib.util
import os
import sys
from pathlib import Path

from common import UserError

FRAMEWORKS = {"torch": "torch", "tf": "tensorflow"}  # by the last part of a paper's name


def prepare(name: str, file: str) -> None:
    """Makes a missing package one line and exit code 2 instead of a traceback.

    Called with __name__ and __file__ before an entry script imports anything else that is not in
    the standard library; no effect if the script is imported as a module.
    """
    if name != "__main__":
        return
    paper = Path(file).resolve().parent.name

    def hook(kind: type[BaseException], error: BaseException, traceback: object) -> None:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if not isinstance(error, ModuleNotFoundError) or package in ("", "common", paper):
            sys.__excepthook__(kind, error, traceback)
            return
        sys.stderr.write(f"error: {_advice(paper, package)}\n")
        sys.stderr.flush()
        os._exit(2)  # the exit code of an exception is 1

    sys.excepthook = hook


def require_framework(paper: str) -> None:
    """Raises UserError if the framework of a paper, a folder's name, is not installed."""
    framework = FRAMEWORKS.get(paper.rpartition("_")[2])
    if framework and importlib.util.find_spec(framework) is None:
        raise UserError(_advice(paper, framework))


def _advice(paper: str, package: str) -> str:
    target, _, framework = paper.rpartition("_")
    return (
        f"{package}, which {paper} needs, is not installed: run make {target} in the repository, "
        f"or pip install -e '.[{framework}-cpu]'"
    )
