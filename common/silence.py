"""Silences stderr while a noisy library is imported."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Discards everything written to standard error inside, from C too; exceptions pass.

    TensorFlow, for example, logs from C++ on import, before its log level can be set.
    """
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
