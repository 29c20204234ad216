"""Small synthetic images with labels."""

import numpy as np
from PIL import Image


def labeled_image(seed, size=(30, 40)):
    """Sky, ground and a box on it, noisy: image uint8 (h, w, 3), labels uint8 (h, w)."""
    random = np.random.default_rng(seed)
    image = np.zeros((*size, 3))
    labels = np.zeros(size, np.uint8)
    horizon = random.integers(8, 20)
    image[:horizon], image[horizon:] = (120, 170, 240), (110, 90, 60)
    labels[horizon:] = 1
    x = random.integers(2, size[1] - 14)
    box = np.s_[horizon - 4 : horizon + 6, x : x + 12]
    image[box], labels[box] = (220, 40, 40), 2
    labels[:, :2] = 255
    image += random.normal(0, 10, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def write_labeled_images(folder, n=8, n_val=3):
    """FOLDER/train and FOLDER/val with images of two sizes and their label maps."""
    for split, seeds in (("train", range(n)), ("val", range(100, 100 + n_val))):
        (folder / split).mkdir(parents=True)
        for i in seeds:
            image, labels = labeled_image(i, (30, 40) if i % 3 else (26, 44))
            Image.fromarray(image).save(folder / split / f"{i}.jpg", quality=95)
            Image.fromarray(labels).save(folder / split / f"{i}.png")
    (folder / "classes.txt").write_text("sky\nground\nbox\n")
    return folder


def write_color_classes(folder, n=8, side=20):
    """n noisy images of each color, with a sub-folder per color."""
    for k, name in enumerate(("blue", "green", "red")):
        random = np.random.default_rng(k)
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.roll([200, 60, 60], k)[::-1] + random.normal(0, 30, (side, side, 3))
            pixels = np.clip(pixels, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder
