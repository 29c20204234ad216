"""Sheets and animations of a run."""

import numpy as np
from PIL import Image

from common import images


def test_sheet_columns_and_rows_fit_their_largest_image():
    black, gray = np.zeros((2, 3, 3), np.uint8), np.full((4, 1), 90, np.uint8)
    sheet = images.sheet([[black, gray], [gray, black]], gap=1)
    assert sheet.shape == (4 + 1 + 4, 3 + 1 + 3, 3)
    assert (sheet[:2, :3] == 0).all() and (sheet[:4, 4] == 90).all()
    assert (sheet[5:9, 0] == 90).all() and (sheet[5:7, 4:7] == 0).all()
    assert (sheet[4] == 255).all() and (sheet[:, 3] == 255).all()


def test_frames_of_different_sizes_make_one_animation(tmp_path):
    frames = [[np.full((h, w, 3), 99, np.uint8)] for h, w in ((4, 9), (7, 5))]
    images.save_gif_of_rows(tmp_path / "frames.gif", frames)
    with Image.open(tmp_path / "frames.gif") as animation:
        assert (animation.n_frames, animation.size) == (2, (9, 7))
