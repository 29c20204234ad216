import numpy as np

from common import images


def test_sheet_aligns_images_of_different_sizes():
    dark, gray = np.zeros((2, 3, 3), np.uint8), np.full((1, 1), 7, np.uint8)
    sheet = images.sheet([[dark, gray], [gray, gray]], gap=1)
    assert sheet.shape == (2 + 1 + 1, 3 + 1 + 1, 3)
    assert (sheet[:2, :3] == 0).all() and (sheet[0, 4] == 7).all()
    assert (sheet[3, 0] == 7).all() and (sheet[2] == 255).all() and (sheet[1, 4] == 255).all()


def test_grid_arranges_images_in_rows_on_white():
    grid = images.grid(np.zeros((3, 1, 1)), n_columns=2, pad=1)
    assert np.array_equal(grid, [[0, 255, 0], [255, 255, 255], [0, 255, 255]])
    assert images.grid(np.zeros((1, 2, 3, 1)), scale=4).shape == (8, 12)
    assert images.grid(np.zeros((5, 2, 3, 3)), pad=0).shape == (4, 9, 3)


def test_palette_is_distinct_and_independent_of_n():
    colors = images.palette(256)
    assert len(np.unique(colors, axis=0)) == 256
    assert np.array_equal(colors[:10], images.palette(10))


def test_overlay_blends_colors_except_for_negative_labels():
    labels = np.array([[0, 1, -1]])
    tinted = images.overlay(np.full((1, 3), 100, np.uint8), labels, alpha=0.5)
    expected = (100 + images.palette(2).astype(float)) / 2
    assert np.abs(tinted[0, :2] - expected).max() <= 0.5
    assert tinted[0, 2].tolist() == [100, 100, 100]


def test_mean_colors_by_hand():
    rgb = np.array([[[10, 20, 30], [20, 40, 60]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
    labels = np.array([[0, 0], [1, 3]])
    assert images.mean_colors(rgb, labels).tolist() == [
        [15, 30, 45],
        [0, 0, 0],
        [0, 0, 0],
        [255, 255, 255],
    ]


def test_contours_change_boundaries_only():
    rgb = np.full((6, 8, 3), 50, np.uint8)
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 1
    drawn = images.contours(rgb, labels)
    assert (drawn[:, [0, 1, 2, 5, 6, 7]] == 50).all()
    assert (drawn[:, 4] == (255, 230, 0)).all() and (drawn[:, 3] == 0).all()
