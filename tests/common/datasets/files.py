"""Writes files of datasets, and captures the error for bad ones."""

import numpy as np
import pytest
from PIL import Image

from common import UserError

RNG = np.random.default_rng(0)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_image(path, shape=(6, 8, 3), mode=None, **options):
    """Random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(RNG.integers(0, 256, shape, np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def error_of(function, *args, **options):
    """The one-line message of the UserError that a call raises."""
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
