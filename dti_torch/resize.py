"""Makes small, numbered JPEGs of a folder of images: python -m dti_torch.resize FOLDER OUT"""

import argparse
import logging
import os
import tempfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from common import UserError, images
from common.datasets import folders

MAX_SIDE = 65_500  # pixels, of a JPEG

log = logging.getLogger("dti_torch.resize")


def resize(folder: Path, out: Path, size: int) -> int:
    """Writes every image below folder to out as 00000.jpg, 00001.jpg, ... and returns their number.

    The shorter side becomes size pixels. Unreadable images are skipped and logged. Raises UserError
    if out is not empty or there is no image; out is created only once it is complete.
    """
    if size < 1:
        raise UserError(f"--size is {size}: expected 1 or more")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: expected a folder of images")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} is not empty: move it or choose another folder")
    visible = [path for path in folder.rglob("*") if not path.name.startswith(".")]
    paths = sorted(filter(folders.is_image, visible))
    folders.log_unread(folder, visible)

    def shrink(path: Path) -> np.ndarray | UserError:
        try:
            image = images.load(path)
        except UserError as error:
            return error
        scale = size / min(image.shape[:2])
        height, width = (round(side * scale) for side in image.shape[:2])
        if max(height, width) > MAX_SIDE:
            return UserError(f"{path}: {image.shape[1]}x{image.shape[0]} is too narrow")
        return images.resize(image, (height, width))

    from tqdm import tqdm

    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    n_written = n_skipped = 0
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary, ThreadPool() as pool:
        complete = Path(temporary, out.name)
        complete.mkdir()
        shrunk = pool.imap(shrink, paths)
        for image in tqdm(shrunk, "resizing", len(paths), disable=None, unit="image"):
            if isinstance(image, UserError):
                log.warning("skipped %s", image)
                n_skipped += 1
                continue
            Image.fromarray(image).save(complete / f"{n_written:05d}.jpg", quality=95)
            n_written += 1
        if not n_written:
            raise UserError(
                f"{folder} contains no readable images ({', '.join(folders.EXTENSIONS)})"
            )
        os.replace(complete, out)
    log.info("%d images in %s, %d skipped", n_written, out, n_skipped)
    return n_written


def main() -> None:
    description = "Make small, numbered JPEGs of a folder of images."
    parser = argparse.ArgumentParser("python -m dti_torch.resize", description=description)
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="folder of images, searched recursively"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="new or empty output folder")
    parser.add_argument(
        "--size", type=int, default=128, help="shorter side in pixels (default: %(default)s)"
    )
    options = parser.parse_args()
    resize(options.folder, options.out, options.size)


if __name__ == "__main__":
    from common import cli

    cli.main(main)
