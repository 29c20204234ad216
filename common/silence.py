"""Libraries that greet."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Nothing is written to standard error inside, not even from C; exceptions pass.

    TensorFlow says on import that oneDNN is on, before it can be told to be silent.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
