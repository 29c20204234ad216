"""Files for tests of data sets to load, and the line that refuses them."""

import numpy as np
import pytest
from PIL import Image

from common import UserError, datasets

RNG = np.random.default_rng(0)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def picture(path, shape=(6, 8, 3), mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(RNG.integers(0, 256, shape, np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def refusal(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        datasets.load(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)
