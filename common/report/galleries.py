"""The pictures of a report: which there are, in which order, and inside it as data URIs."""

import base64
import hashlib
import io
from pathlib import Path

from PIL import Image

from common import UserError, images
from common.report import formatting

PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".webp"}
BUDGET = 10_000_000  # bytes of pictures in one report; base64 makes them a third longer
MAX_WIDTH = 1600  # pixels


class Pictures:
    """Turns files into data URIs: each content once, and links when the budget is used up."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.left = BUDGET
        self.n_linked = 0
        self.seen: set[str] = set()

    def __call__(self, path: Path, captions: dict) -> dict:
        caption = captions.get(path.relative_to(self.run / "images").as_posix())
        caption = caption if isinstance(caption, dict) else {"caption": caption or ""}
        picture = {
            "title": caption.get("title") or formatting.title(path.stem),
            "caption": caption.get("caption"),
        }
        try:
            data, kind, width, height = _encode(path)
        except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return {**picture, "broken": True}
        picture |= {"width": width, "height": height, "id": hashlib.sha256(data).hexdigest()[:16]}
        if picture["id"] in self.seen:
            return {**picture, "same": True}
        if len(data) > self.left:
            self.n_linked += 1
            return {**picture, "source": formatting.link(path, self.run)}
        self.seen.add(picture["id"])
        self.left -= len(data)
        return {**picture, "source": _data_uri(data, kind)}


def _encode(path: Path) -> tuple[bytes, str, int, int]:
    """Bytes, kind, width and height; still pictures that are wide or heavy are made smaller."""
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


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def thumbnail(folder: Path, captions: dict) -> str:
    """The first picture, 128 pixels high at most; the first frame of an animation."""
    try:
        array = images.load(pictures_in(folder, captions)[0])
    except (IndexError, UserError):
        return ""
    h, w = array.shape[:2]
    shrink = min(1, 128 / h, 256 / w)
    array = images.resize(array, (max(round(h * shrink), 1), max(round(w * shrink), 1)))
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return _data_uri(buffer.getvalue(), "PNG")


def pictures_in(folder: Path, captions: dict, deep: bool = False) -> list[Path]:
    """Those that captions.json names come first and in its order, then the others by name."""
    found = folder.rglob("*") if deep else folder.glob("*")
    order = list(captions)
    return sorted(
        (path for path in found if path.suffix.lower() in PICTURES and path.is_file()),
        key=lambda path: ((order + [path.name]).index(path.name), path),
    )


def sections(folder: Path, captions: dict, embed: Pictures) -> list[dict]:
    """Every folder of pictures but clusters/, in the order of captions.json and then by name."""
    order = list(captions)
    names = sorted(
        path.name for path in folder.glob("*") if path.is_dir() and path.name != "clusters"
    )
    found = []
    for name in sorted(names, key=lambda name: (order + [name]).index(name)):
        caption = captions.get(name) if isinstance(captions.get(name), dict) else {}
        inner = {key.removeprefix(f"{name}/"): value for key, value in captions.items()}
        paths = pictures_in(folder / name, inner, deep=True)
        if paths:
            found.append(
                {
                    "title": caption.get("title") or formatting.title(name),
                    "caption": caption.get("caption"),
                    "pictures": [embed(path, captions) for path in paths],
                }
            )
    return found
