import colorsys
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from deepcluster_torch import augment
from deepcluster_torch.augment import Augmentation

WHOLE = Augmentation(16, scale=(1, 1), ratio=(1, 1), flip=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(b=6, c=3, h=16, w=16, seed=0):
    return torch.randint(256, (b, c, h, w), generator=generator(seed), dtype=torch.uint8)


def changed(**options):
    return dataclasses.replace(WHOLE, **options)


def test_nothing_switched_on_gives_the_image():
    images = pictures()
    for found in (
        augment.augment(images, WHOLE, generator()),
        augment.centre(images, 16),
        augment.augment(images.to(memory_format=torch.channels_last), WHOLE, generator()),
    ):
        torch.testing.assert_close(found, images / 255)


@pytest.mark.parametrize(("size", "shape"), [(8, (24, 24)), (20, (9, 13)), (7, (30, 11))])
def test_resizing_is_pillow_s(size, shape):
    images = pictures(2, 3, *shape)
    found = augment.centre(images, size)
    for image, view in zip(images, found, strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = np.asarray(pillow.resize((size, size), Image.Resampling.BILINEAR))
        # pillow rounds to whole levels, after each of two passes
        np.testing.assert_allclose(255 * view.permute(1, 2, 0), expected, atol=1.2)


def test_the_centre_is_the_middle_of_the_image():
    images = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    images[:, :, 3:13, 3:13] = 255
    assert (augment.centre(images, 6, share=0.5) == 1).all()
    assert augment.centre(images, 8, share=1.0)[0, 0, 0, 0] == 0


def test_crops_differ_inside_of_one_batch():
    ramp = torch.arange(32, dtype=torch.uint8).expand(40, 1, 32, 32).contiguous() * 8
    views = augment.augment(ramp, Augmentation(8, flip=0), generator())
    lefts, rights = views[:, 0, 0, 0], views[:, 0, 0, -1]
    assert len(lefts.unique()) > 35 and len((rights - lefts).unique()) > 35


def test_crops_have_the_area_and_the_ratio_asked_for_and_lie_inside():
    how = Augmentation(8, scale=(0.2, 0.5), ratio=(0.5, 2))
    tops, lefts, heights, widths = augment._crops(3000, 60, 100, how, generator())
    areas, ratios = heights * widths / 6000, widths / heights
    # a tenth of the tries may not fit, ten in a row hardly ever
    assert areas.min() >= 0.199 and areas.max() <= 0.501 and abs(areas.mean() - 0.35) < 0.02
    assert ratios.min() >= 0.499 and ratios.max() <= 2.001
    assert abs(ratios.log().mean()) < 0.3  # wide ones fit better into a wide image
    assert tops.min() >= 0 and (tops + heights).max() <= 60.001
    assert lefts.min() >= 0 and (lefts + widths).max() <= 100.001
    assert tops.max() > 20 and lefts.max() > 40


def test_a_crop_that_never_fits_is_cut():
    how = Augmentation(4, scale=(1, 1), ratio=(1, 1))
    _, lefts, heights, widths = augment._crops(5, 10, 40, how, generator())
    assert (heights == 10).all() and (widths == 20).all() and (lefts <= 20).all()


def test_half_of_the_views_are_mirrored():
    images = pictures(1).expand(400, -1, -1, -1)
    views = augment.augment(images, changed(flip=0.5), generator())
    upright = torch.isclose(views, images / 255, atol=1e-5).all(3).all(2).all(1)
    mirrored = torch.isclose(views.flip(3), images / 255, atol=1e-5).all(3).all(2).all(1)
    assert (upright ^ mirrored).all() and 160 < upright.sum() < 240


def test_views_depend_on_the_generator_alone_and_leave_the_images_alone():
    images, how = pictures(), Augmentation(8, brightness=0.4, hue=0.1, gray=0.2, blur=0.5)
    before = images.clone()
    first = augment.augment(images, how, generator(1))
    torch.rand(3)
    assert torch.equal(augment.augment(images, how, generator(1)), first)
    assert not torch.equal(augment.augment(images, how, generator(2)), first)
    assert torch.equal(images, before)


@pytest.mark.parametrize("c", [1, 3])
def test_views_stay_between_0_and_1(c):
    how = Augmentation(
        12, brightness=1, contrast=1, saturation=1, hue=0.5, jitter=1, gray=0.3, blur=0.5
    )
    views = augment.augment(pictures(40, c), how, generator())
    assert views.shape == (40, c, 12, 12) and views.dtype == torch.float32
    assert views.min() >= 0 and views.max() <= 1


# ---- colours, against a formula each; values in the middle, so that none is cut


def soft(b=50):
    return (pictures(b) // 4 + 96).byte()


def test_brightness_multiplies_each_image_by_a_factor_of_its_own():
    images = soft()
    views = augment.augment(images, changed(brightness=0.4, jitter=1), generator())
    factors = (views / (images / 255)).flatten(1)
    assert (factors.amax(1) - factors.amin(1)).max() < 1e-4
    assert 0.6 <= factors.min() < 0.7 and 1.3 < factors.max() <= 1.4


def test_contrast_moves_values_from_the_mean_gray_of_the_image():
    images = soft()
    views = augment.augment(images, changed(contrast=0.4, jitter=1), generator())
    values = images / 255
    gray = (values * torch.tensor(augment.GRAY)[:, None, None]).sum(1).mean((1, 2))
    gray = gray[:, None, None, None]
    factors = (views - gray).flatten(1).norm(dim=1) / (values - gray).flatten(1).norm(dim=1)
    expected = gray + factors[:, None, None, None] * (values - gray)
    torch.testing.assert_close(views, expected, atol=1e-4, rtol=0)
    assert 0.6 <= factors.min() < 0.7 and 1.3 < factors.max() <= 1.4


def test_saturation_and_gray_keep_the_luminance():
    images = soft()
    weights = torch.tensor(augment.GRAY)[:, None, None]
    for how in (changed(saturation=0.5, jitter=1), changed(gray=1.0)):
        views = augment.augment(images, how, generator())
        torch.testing.assert_close((views * weights).sum(1), (images / 255 * weights).sum(1))
    assert (views.amax(1) - views.amin(1)).max() < 1e-5  # the last ones are gray


def test_a_third_of_a_turn_makes_red_to_green_or_blue():
    red = torch.tensor([0.6, 0.4, 0.4])
    for turn in (1 / 3, -1 / 3):
        turned = augment._turns(torch.tensor([turn]))[0] @ red
        hue, _, _ = colorsys.rgb_to_hsv(*turned.tolist())
        # hues of YIQ are not quite those of HSV
        assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.08
    torch.testing.assert_close(augment._turns(torch.zeros(1))[0], torch.eye(3))


def test_the_share_of_views_with_changed_colours_is_as_asked_for():
    images = soft(400)
    views = augment.augment(images, changed(brightness=0.4, jitter=0.25), generator())
    kept = torch.isclose(views, images / 255, atol=1e-5).flatten(1).all(1)
    assert 260 < kept.sum() < 340


def test_a_gray_image_changes_as_its_copy_in_colour_does():
    gray = (pictures(20, 1) // 4 + 96).byte()
    how = changed(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, jitter=1, gray=0.3)
    one = augment.augment(gray, how, generator())
    three = augment.augment(gray.expand(-1, 3, -1, -1).contiguous(), how, generator())
    torch.testing.assert_close(one.expand(-1, 3, -1, -1), three, atol=1e-4, rtol=0)


# ---- blur


def test_blur_spreads_a_point_by_sigma():
    images = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    images[0, 0, 32, 32] = 255
    sigma = 2.0 * 224 / 65  # of a view of 224 pixels: 2 pixels here
    how = Augmentation(65, (1, 1), (1, 1), flip=0, blur=1, sigma=(sigma, sigma))
    view = augment.augment(images, how, generator())[0, 0].double()
    places = torch.arange(65) - 32.0
    assert view.sum() == pytest.approx(1, abs=1e-4)
    assert (view.sum(0) * places**2).sum() == pytest.approx(4, rel=0.01)
    assert (view.sum(1) * places**2).sum() == pytest.approx(4, rel=0.01)


def test_half_of_the_views_are_blurred():
    images = pictures(200)
    how = changed(blur=0.5, sigma=(20, 20))
    views = augment.augment(images, how, generator())
    sharp = torch.isclose(views, images / 255, atol=1e-5).flatten(1).all(1)
    assert 70 < sharp.sum() < 130


def test_multi_crop_gives_a_view_of_each_kind():
    images = pictures(5, 3, 32, 32)
    crops = [Augmentation(24), Augmentation(24), Augmentation(10, scale=(0.05, 0.3))]
    views = augment.multi_crop(images, crops, generator())
    assert [tuple(view.shape) for view in views] == [(5, 3, 24, 24)] * 2 + [(5, 3, 10, 10)]
    assert not torch.equal(views[0], views[1])
