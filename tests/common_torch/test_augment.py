import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image

from common.pytorch import augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(b=4, c=3, h=8, w=10):
    return torch.rand(b, c, h, w, generator=generator())


def test_uniform_is_between_the_bounds():
    values = augment.uniform(2000, (-1.0, 3.0), generator())
    assert values.shape == (2000,) and values.min() >= -1 and values.max() <= 3
    assert abs(float(values.mean()) - 1) < 0.1


# ---- crops


def test_random_crops_match_a_slow_loop():
    b, h, w, scale, ratio = 50, 20, 40, (0.3, 1.0), (0.5, 2.0)
    crops = torch.stack(augment.random_crops(b, h, w, scale, generator(), ratio))
    draws = generator()
    areas = h * w * augment.uniform(augment.N_TRIES * b, scale, draws)
    logs = augment.uniform(augment.N_TRIES * b, (math.log(ratio[0]), math.log(ratio[1])), draws)
    n_late = 0
    tops, lefts = (torch.rand(b, generator=draws).tolist() for _ in range(2))
    for i in range(b):
        tries = [
            (math.sqrt(area / math.exp(log)), math.sqrt(area * math.exp(log)))
            for area, log in zip(areas[i::b].tolist(), logs[i::b].tolist(), strict=True)
        ]
        fitting = [(height, width) for height, width in tries if height <= h and width <= w]
        height, width = fitting[0] if fitting else (min(tries[0][0], h), min(tries[0][1], w))
        n_late += (height, width) != tries[0]
        expected = [(h - height) * tops[i], (w - width) * lefts[i], height, width]
        assert crops[:, i].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert 5 < n_late < 45  # some first tries do not fit


def test_random_crops_are_inside_with_the_given_area_and_ratio():
    scale, ratio = (0.2, 0.5), (0.5, 2.0)
    tops, lefts, heights, widths = augment.random_crops(3000, 60, 100, scale, generator(), ratio)
    areas, ratios = heights * widths / 6000, widths / heights
    # a tenth of the tries may not fit, ten in a row hardly ever
    assert areas.min() >= 0.199 and areas.max() <= 0.501 and abs(areas.mean() - 0.35) < 0.02
    assert ratios.min() >= 0.499 and ratios.max() <= 2.001
    assert tops.min() >= 0 and (tops + heights).max() <= 60.001
    assert lefts.min() >= 0 and (lefts + widths).max() <= 100.001


def test_crop_that_never_fits_is_clipped():
    _, lefts, heights, widths = augment.random_crops(5, 10, 40, (1, 1), generator(), (1, 1))
    assert (heights == 10).all() and (widths == 20).all() and (lefts <= 20).all()


# ---- matrices


def slow_resize_matrix(start, step, side, n_out, n_columns):
    """Linear interpolation; where it shrinks, a triangle as wide as two output pixels."""
    matrix = np.zeros((n_out, n_columns))
    for i in range(n_out):
        center = start + (i + 0.5) * step
        if not 0 <= center < side:
            continue
        for j in range(side):
            matrix[i, j] = max(1 - abs(j + 0.5 - center) / max(step, 1), 0)
        matrix[i] /= matrix[i].sum()
    return matrix


def test_resize_matrices_match_a_slow_loop():
    starts, steps = torch.tensor([0.0, 1.3, -2.0]), torch.tensor([0.4, 1.7, 1.0])
    sides = torch.tensor([5, 9, 7])
    matrices = augment.resize_matrices(starts, steps, sides, 6)
    assert matrices.shape == (3, 6, 9)
    for i in range(3):
        expected = slow_resize_matrix(float(starts[i]), float(steps[i]), int(sides[i]), 6, 9)
        np.testing.assert_allclose(matrices[i], expected, atol=1e-5)
    assert (matrices[2, :2] == 0).all()  # outside the image


@pytest.mark.parametrize(("size", "shape"), [(8, (24, 24)), (20, (9, 13)), (7, (30, 11))])
def test_resampling_matches_pillow(size, shape):
    images = torch.randint(256, (2, 3, *shape), generator=generator(), dtype=torch.uint8)
    rows, columns = (
        augment.resize_matrices(
            torch.zeros(2), torch.full((2,), n / size), torch.tensor([n] * 2), size
        )
        for n in shape
    )
    resized = augment.resample(images.float(), rows, columns)
    for image, view in zip(images, resized, strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = np.asarray(pillow.resize((size, size), Image.Resampling.BILINEAR))
        # Pillow rounds to integers after each of two passes
        np.testing.assert_allclose(view.permute(1, 2, 0), expected, atol=1.2)


def test_resample_applies_rows_and_columns():
    images = random_images()
    rows, columns = (torch.rand(4, n, m, generator=generator()) for n, m in ((3, 8), (5, 10)))
    expected = torch.einsum("bsh,bchw,btw->bcst", rows, images, columns)
    torch.testing.assert_close(augment.resample(images, rows, columns), expected)
    shared = augment.resample(images, rows[:1], columns[:1])
    torch.testing.assert_close(shared[0], expected[0])


def test_blur_matrices_match_a_slow_gaussian():
    sigmas = torch.tensor([0.0, 0.5, 3.0])
    matrices = augment.blur_matrices(sigmas, 9)
    assert torch.equal(matrices[0], torch.eye(9))
    for sigma, matrix in zip(sigmas[1:].tolist(), matrices[1:], strict=True):
        for i in range(9):
            weights = np.array([math.exp(-((i - j) ** 2) / (2 * sigma**2)) for j in range(9)])
            np.testing.assert_allclose(matrix[i], weights / weights.sum(), atol=1e-6)


# ---- color


def slow_adjust(image, brightness, contrast, saturation, hue, is_gray):
    """One step after the other, for an image (3, h, w)."""
    luminance = np.array(augment.GRAY)
    image = image * brightness
    mean = luminance @ image.mean((1, 2))
    image = mean + contrast * (image - mean)
    yiq = np.array(augment.YIQ)
    angle = 2 * math.pi * hue
    rotation = np.eye(3)
    rotation[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    image = np.einsum("ij,jhw->ihw", np.linalg.inv(yiq) @ rotation @ yiq, image)
    gray = np.einsum("j,jhw->hw", luminance, image)[None]
    image = gray + saturation * (image - gray)
    return np.repeat(np.einsum("j,jhw->hw", luminance, image)[None], 3, 0) if is_gray else image


PARAMETERS = {
    "brightness": torch.tensor([1.0, 0.6, 1.4, 1.1]),
    "contrast": torch.tensor([1.0, 1.3, 0.5, 0.8]),
    "saturation": torch.tensor([1.0, 0.0, 1.5, 0.7]),
    "hue": torch.tensor([0.0, 0.1, -0.3, 0.5]),
}


@pytest.mark.parametrize("grayscale", [None, torch.tensor([False, True, True, False])])
def test_adjust_colors_matches_slow_steps(grayscale):
    images = random_images()
    adjusted = augment.adjust_colors(images, **PARAMETERS, grayscale=grayscale)
    for i, image in enumerate(images.double().numpy()):
        values = [float(parameter[i]) for parameter in PARAMETERS.values()]
        is_gray = grayscale is not None and bool(grayscale[i])
        np.testing.assert_allclose(adjusted[i], slow_adjust(image, *values, is_gray), atol=1e-4)
    torch.testing.assert_close(adjusted[0], images[0])  # all parameters neutral


def test_adjust_colors_of_a_gray_image_equals_three_channels():
    gray = random_images(c=1)
    grayscale = torch.tensor([False, True, False, True])
    single = augment.adjust_colors(gray, **PARAMETERS, grayscale=grayscale)
    triple = augment.adjust_colors(gray.expand(-1, 3, -1, -1), **PARAMETERS, grayscale=grayscale)
    torch.testing.assert_close(single.expand(-1, 3, -1, -1), triple, atol=1e-4, rtol=0)


def test_hue_rotations_keep_luminance_and_compose():
    rotations = augment.hue_rotations(torch.tensor([0.0, 1 / 3, -1 / 3, 0.25]))
    torch.testing.assert_close(rotations[0], torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotations[1] @ rotations[2], torch.eye(3), atol=1e-5, rtol=0)
    color = torch.tensor([0.6, 0.3, 0.4])
    luminance = torch.tensor(augment.GRAY)
    torch.testing.assert_close(rotations @ color @ luminance, (color @ luminance).expand(4))


@pytest.mark.parametrize("turn", [1 / 3, -1 / 3])
def test_a_third_of_a_turn_rotates_red_to_green_or_blue(turn):
    rotated = augment.hue_rotations(torch.tensor([turn]))[0] @ torch.tensor([0.6, 0.4, 0.4])
    hue, _, _ = colorsys.rgb_to_hsv(*rotated.tolist())
    # hues of YIQ differ a little from those of HSV
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.08
