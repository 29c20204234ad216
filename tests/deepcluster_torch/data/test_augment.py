import colorsys
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from common.pytorch import augment as matrices
from deepcluster_torch import config
from deepcluster_torch.data import augment
from deepcluster_torch.data.augment import Augmentation

IDENTITY = Augmentation(16, scale=(1, 1), ratio=(1, 1), flip=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(b=6, c=3, h=16, w=16, seed=0):
    return torch.randint(256, (b, c, h, w), generator=generator(seed), dtype=torch.uint8)


def with_options(**options):
    return dataclasses.replace(IDENTITY, **options)


def test_augment_with_everything_off_returns_the_image():
    images = noise()
    for views in (
        augment.augment(images, IDENTITY, generator()),
        augment.center_crop(images, 16),
        augment.augment(images.to(memory_format=torch.channels_last), IDENTITY, generator()),
    ):
        torch.testing.assert_close(views, images / 255)


@pytest.mark.parametrize(("size", "shape"), [(8, (24, 24)), (20, (9, 13)), (7, (30, 11))])
def test_resizing_equals_pillow(size, shape):
    images = noise(2, 3, *shape)
    for image, view in zip(images, augment.center_crop(images, size), strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = np.asarray(pillow.resize((size, size), Image.Resampling.BILINEAR))
        # pillow rounds to whole levels after each of two passes
        np.testing.assert_allclose(255 * view.permute(1, 2, 0), expected, atol=1.2)


def test_center_crop_is_the_middle_of_the_image():
    images = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    images[:, :, 3:13, 3:13] = 255
    assert (augment.center_crop(images, 6, fraction=0.5) == 1).all()
    assert augment.center_crop(images, 8, fraction=1.0)[0, 0, 0, 0] == 0


def test_crops_differ_within_a_batch():
    ramp = torch.arange(32, dtype=torch.uint8).expand(40, 1, 32, 32).contiguous() * 8
    views = augment.augment(ramp, Augmentation(8, flip=0), generator())
    lefts, rights = views[:, 0, 0, 0], views[:, 0, 0, -1]
    assert len(lefts.unique()) > 35 and len((rights - lefts).unique()) > 35


def test_random_crops_have_the_given_area_and_ratio_and_are_inside():
    crops = matrices.random_crops(3000, 60, 100, (0.2, 0.5), generator(), (0.5, 2))
    tops, lefts, heights, widths = crops
    areas, ratios = heights * widths / 6000, widths / heights
    # a tenth of the tries may not fit, ten in a row hardly ever
    assert areas.min() >= 0.199 and areas.max() <= 0.501 and abs(areas.mean() - 0.35) < 0.02
    assert ratios.min() >= 0.499 and ratios.max() <= 2.001
    assert abs(ratios.log().mean()) < 0.3  # wide ones fit better into a wide image
    assert tops.min() >= 0 and (tops + heights).max() <= 60.001
    assert lefts.min() >= 0 and (lefts + widths).max() <= 100.001
    assert tops.max() > 20 and lefts.max() > 40


def test_random_crops_that_never_fit_are_clipped():
    crops = matrices.random_crops(5, 10, 40, (1, 1), generator(), (1, 1))
    _, lefts, heights, widths = crops
    assert (heights == 10).all() and (widths == 20).all() and (lefts <= 20).all()


def test_half_of_the_views_are_mirrored():
    images = noise(1).expand(400, -1, -1, -1)
    views = augment.augment(images, with_options(flip=0.5), generator())
    upright = torch.isclose(views, images / 255, atol=1e-5).all(3).all(2).all(1)
    mirrored = torch.isclose(views.flip(3), images / 255, atol=1e-5).all(3).all(2).all(1)
    assert (upright ^ mirrored).all() and 160 < upright.sum() < 240


def test_augment_depends_on_the_generator_alone_and_keeps_its_input():
    images, augmentation = noise(), Augmentation(8, brightness=0.4, hue=0.1, gray=0.2, blur=0.5)
    before = images.clone()
    first = augment.augment(images, augmentation, generator(1))
    torch.rand(3)
    assert torch.equal(augment.augment(images, augmentation, generator(1)), first)
    assert not torch.equal(augment.augment(images, augmentation, generator(2)), first)
    assert torch.equal(images, before)


@pytest.mark.parametrize("c", [1, 3])
def test_views_are_between_0_and_1(c):
    augmentation = Augmentation(
        12, brightness=1, contrast=1, saturation=1, hue=0.5, jitter=1, gray=0.3, blur=0.5
    )
    views = augment.augment(noise(40, c), augmentation, generator())
    assert views.shape == (40, c, 12, 12) and views.dtype == torch.float32
    assert views.min() >= 0 and views.max() <= 1


# ---- colors, each against a formula; medium values, so that none is clipped


def medium(b=50, c=3):
    return (noise(b, c) // 4 + 96).byte()


def test_brightness_multiplies_each_image_by_its_own_factor():
    images = medium()
    views = augment.augment(images, with_options(brightness=0.4, jitter=1), generator())
    factors = (views / (images / 255)).flatten(1)
    assert (factors.amax(1) - factors.amin(1)).max() < 1e-4
    assert 0.6 <= factors.min() < 0.7 and 1.3 < factors.max() <= 1.4


def test_contrast_scales_around_the_mean_gray_of_the_image():
    images = medium()
    views = augment.augment(images, with_options(contrast=0.4, jitter=1), generator())
    values = images / 255
    gray = (values * torch.tensor(matrices.GRAY)[:, None, None]).sum(1).mean((1, 2))
    gray = gray[:, None, None, None]
    factors = (views - gray).flatten(1).norm(dim=1) / (values - gray).flatten(1).norm(dim=1)
    expected = gray + factors[:, None, None, None] * (values - gray)
    torch.testing.assert_close(views, expected, atol=1e-4, rtol=0)
    assert 0.6 <= factors.min() < 0.7 and 1.3 < factors.max() <= 1.4


def test_saturation_and_gray_keep_the_luminance():
    images = medium()
    weights = torch.tensor(matrices.GRAY)[:, None, None]
    for augmentation in (with_options(saturation=0.5, jitter=1), with_options(gray=1.0)):
        views = augment.augment(images, augmentation, generator())
        torch.testing.assert_close((views * weights).sum(1), (images / 255 * weights).sum(1))
    assert (views.amax(1) - views.amin(1)).max() < 1e-5  # the last ones are gray


def test_hue_rotated_by_a_third_turns_red_to_green_or_blue():
    red = torch.tensor([0.6, 0.4, 0.4])
    for rotation in (1 / 3, -1 / 3):
        rotated = matrices.hue_rotations(torch.tensor([rotation]))[0] @ red
        hue, _, _ = colorsys.rgb_to_hsv(*rotated.tolist())
        # hues of YIQ are not quite those of HSV
        assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.08
    torch.testing.assert_close(matrices.hue_rotations(torch.zeros(1))[0], torch.eye(3))


def test_jitter_is_the_fraction_of_views_with_changed_colors():
    images = medium(400)
    views = augment.augment(images, with_options(brightness=0.4, jitter=0.25), generator())
    unchanged = torch.isclose(views, images / 255, atol=1e-5).flatten(1).all(1)
    assert 260 < unchanged.sum() < 340


def test_a_gray_image_changes_like_its_rgb_copy():
    gray = medium(20, 1)
    augmentation = with_options(
        brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, jitter=1, gray=0.3
    )
    from_gray = augment.augment(gray, augmentation, generator())
    from_rgb = augment.augment(gray.expand(-1, 3, -1, -1).contiguous(), augmentation, generator())
    torch.testing.assert_close(from_gray.expand(-1, 3, -1, -1), from_rgb, atol=1e-4, rtol=0)


# ---- blur


def test_blur_spreads_a_point_by_sigma():
    images = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    images[0, 0, 32, 32] = 255
    augmentation = Augmentation(65, (1, 1), (1, 1), flip=0, blur=1, sigma=(2, 2))
    view = augment.augment(images, augmentation, generator())[0, 0].double()
    positions = torch.arange(65) - 32.0
    assert view.sum() == pytest.approx(1, abs=1e-4)
    assert (view.sum(0) * positions**2).sum() == pytest.approx(4, rel=0.01)
    assert (view.sum(1) * positions**2).sum() == pytest.approx(4, rel=0.01)


def test_half_of_the_views_are_blurred():
    images = noise(200)
    views = augment.augment(images, with_options(blur=0.5, sigma=(20, 20)), generator())
    sharp = torch.isclose(views, images / 255, atol=1e-5).flatten(1).all(1)
    assert 70 < sharp.sum() < 130


def test_crops_of_both_sizes_are_blurred_by_as_many_pixels():
    cfg = config.Config(
        model=config.Model(input_size=224),
        training=config.Training(blur=0.5, small_size=96, n_small_crops=6),
    )
    images = noise(1, 3, 256, 256)
    crops = augment.large_crop(cfg, images), augment.small_crop(cfg, images)
    assert [(crop.size, crop.blur, crop.sigma) for crop in crops] == [
        (224, 0.5, (0.1, 2.0)),
        (96, 0.5, (0.1, 2.0)),
    ]


def test_blur_of_sigma_2_equals_pillow():
    # Pillow approximates the Gaussian by boxes; an image of low contrast hides its rounding
    image = np.random.default_rng(0).integers(100, 156, (40, 40, 3), np.uint8)
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    augmentation = Augmentation(40, (1, 1), (1, 1), flip=0, blur=1, sigma=(2, 2))
    view = 255 * augment.augment(images, augmentation, generator())[0].permute(1, 2, 0)
    expected = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))
    inside = slice(8, -8)  # the borders are padded differently
    np.testing.assert_allclose(view[inside, inside], expected[inside, inside], atol=2)


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color"])
def test_strength_1_draws_the_factors_of_the_authors_and_equals_pillow(name):
    cfg = config.Config(training=config.Training(jitter=1.0))
    crop = augment.large_crop(cfg, noise())
    strengths = crop.brightness, crop.contrast, crop.saturation, crop.hue, crop.jitter
    assert strengths == (0.8, 0.8, 0.8, 0.2, 0.8)
    options = {"Brightness": "brightness", "Contrast": "contrast", "Color": "saturation"}
    images = medium()
    augmentation = with_options(jitter=1, **{options[name]: 0.3})  # no clipping
    views = augment.augment(images, augmentation, generator())
    draws = generator()  # as augment: crop, flip, then the three factors
    b = len(images)
    matrices.random_crops(b, 16, 16, (1, 1), draws, (1, 1))
    torch.rand(2 * b, generator=draws)
    factors = 0.7 + 0.6 * torch.rand(3, b, generator=draws)[list(options).index(name)]
    enhance = getattr(ImageEnhance, name)
    for image, view, factor in zip(images, views, factors.tolist(), strict=True):
        pillow = enhance(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(factor)
        np.testing.assert_allclose(255 * view.permute(1, 2, 0), np.asarray(pillow), atol=1.5)


def test_multi_crop_returns_one_view_per_augmentation():
    images = noise(5, 3, 32, 32)
    augmentations = [Augmentation(24), Augmentation(24), Augmentation(10, scale=(0.05, 0.3))]
    views = augment.multi_crop(images, augmentations, generator())
    assert [tuple(view.shape) for view in views] == [(5, 3, 24, 24)] * 2 + [(5, 3, 10, 10)]
    assert not torch.equal(views[0], views[1])
