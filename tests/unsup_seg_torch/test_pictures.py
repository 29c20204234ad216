"""What a run is looked at with."""

import numpy as np
from PIL import Image

from unsup_seg_torch import pictures


def test_a_sheet_has_rows_and_columns_as_large_as_their_largest():
    black, gray = np.zeros((2, 3, 3), np.uint8), np.full((4, 1), 90, np.uint8)
    found = pictures.sheet([[black, gray], [gray, black]], gap=1)
    assert found.shape == (4 + 1 + 4, 3 + 1 + 3, 3)
    assert (found[:2, :3] == 0).all() and (found[:4, 4] == 90).all()
    assert (found[5:9, 0] == 90).all() and (found[5:7, 4:7] == 0).all()
    assert (found[4] == 255).all() and (found[:, 3] == 255).all()


def test_frames_of_different_sizes_make_one_animation(tmp_path):
    frames = [[np.full((h, w, 3), 99, np.uint8)] for h, w in ((4, 9), (7, 5))]
    pictures.write_frames(tmp_path / "frames.gif", frames)
    with Image.open(tmp_path / "frames.gif") as animation:
        assert (animation.n_frames, animation.size) == (2, (9, 7))
