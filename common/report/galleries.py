"""The images of a report: which there are, in which order, and embedded as data URIs."""

import base64
import io
from pathlib import Path

from PIL import Image

from common import UserError, images
from common.report import formatting

SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp"}
BUDGET = 10_000_000  # bytes of images in one report; base64 makes them a third longer
MAX_WIDTH = 1600  # pixels
THUMBNAIL = 160  # pixels of the longer side
PAGE_WIDTH = 1072  # CSS pixels of body in base.html.j2


class Embedder:
    """Turns image files into data URIs, and into links once the budget is used up."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.bytes_left = BUDGET
        self.n_linked = 0

    def __call__(self, path: Path, captions: dict, max_height: int = 480) -> dict:
        """Title, caption and source of an image, and the width to show it at, in CSS pixels."""
        caption = captions.get(path.relative_to(self.run / "images").as_posix())
        caption = caption if isinstance(caption, dict) else {"caption": caption or ""}
        image = {
            "title": caption.get("title") or formatting.sentence_case(path.stem),
            "caption": caption.get("caption"),
        }
        try:
            data, kind, width, height = _encode(path)
        except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return {**image, "is_broken": True}
        image |= {"width": width, "height": height, "shown": _shown(width, height, max_height)}
        if len(data) > self.bytes_left:
            self.n_linked += 1
            return {**image, "source": formatting.relative_url(path, self.run)}
        self.bytes_left -= len(data)
        return {**image, "source": _data_uri(data, kind)}


def _encode(path: Path) -> tuple[bytes, str, int, int]:
    """Bytes, format, width and height; large images are reduced unless they are animated."""
    with Image.open(path, formats=images.FORMATS) as image:
        kind, width, height = image.format, image.width, image.height
        animated = getattr(image, "is_animated", False)
    data = path.read_bytes()
    if animated or width <= MAX_WIDTH and len(data) <= 1_000_000:
        return data, kind, width, height
    array = images.load(path)
    if width > MAX_WIDTH:
        height, width = max(round(height * MAX_WIDTH / width), 1), MAX_WIDTH
        array = images.resize(array, (height, width))
    encodings = []
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, kind, quality=88, optimize=True)
        encodings.append((buffer.getvalue(), kind, width, height))
    return min(encodings, key=lambda encoding: len(encoding[0]))


def _shown(width: int, height: int, max_height: int) -> int:
    """The width at which an image is shown: small ones are enlarged by a whole factor.

    Images wider than the page are dense sheets and exempt from max_height.
    """
    factor = max(1, min(8, 400 // width, 300 // height, max_height // height))
    if width > PAGE_WIDTH:
        return width
    return min(width * factor, max(width * max_height // height, 1))


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def thumbnail(folder: Path, captions: dict) -> str:
    """The first image as a small data URI; of an animation its first frame."""
    try:
        array = images.shrink(images.load(paths(folder, captions)[0]), THUMBNAIL)
    except (IndexError, UserError):
        return ""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return _data_uri(buffer.getvalue(), "PNG")


def paths(folder: Path, captions: dict, recursive: bool = False) -> list[Path]:
    """Image files: first those in captions.json, in its order, then the others by name."""
    files = folder.rglob("*") if recursive else folder.glob("*")
    order = list(captions)
    return sorted(
        (path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()),
        key=lambda path: ((order + [path.name]).index(path.name), path),
    )


def sections(folder: Path, captions: dict, embed: Embedder) -> list[dict]:
    """One per subfolder with images, except clusters/; in the order of `paths`."""
    order = list(captions)
    names = sorted(
        path.name for path in folder.glob("*") if path.is_dir() and path.name != "clusters"
    )
    sections = []
    for name in sorted(names, key=lambda name: (order + [name]).index(name)):
        caption = captions.get(name) if isinstance(captions.get(name), dict) else {}
        inner = {key.removeprefix(f"{name}/"): value for key, value in captions.items()}
        files = paths(folder / name, inner, recursive=True)
        if files:
            sections.append(
                {
                    "title": caption.get("title") or formatting.sentence_case(name),
                    "caption": caption.get("caption"),
                    "images": [embed(path, captions) for path in files],
                }
            )
    return sections
