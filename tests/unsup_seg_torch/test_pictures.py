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


def test_mean_colours_are_those_of_the_labels():
    rgb = np.array([[[10, 20, 30], [20, 40, 60]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
    labels = np.array([[0, 0], [1, 3]])
    found = pictures.mean_colours(rgb, labels)
    assert found.tolist() == [[15, 30, 45], [0, 0, 0], [0, 0, 0], [255, 255, 255]]


def test_contours_leave_the_inside_of_regions_as_it_is():
    rgb = np.full((6, 8, 3), 50, np.uint8)
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 1
    drawn = pictures.contours(rgb, labels)
    assert (drawn[:, [0, 1, 2, 5, 6, 7]] == 50).all()
    assert (drawn[:, 4] == (255, 230, 0)).all() and (drawn[:, 3] == 0).all()
