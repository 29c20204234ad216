"""A run folder as one HTML file that opens offline, and all runs as one table.

python -m common.report RUN            writes RUN/report.html
python -m common.report --all [ROOT]   writes ROOT/runs/index.html and every outdated report
"""

import argparse
import base64
import hashlib
import io
import json
import logging
import os
import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
import yaml
from PIL import Image
from scipy.optimize import linear_sum_assignment

from common import UserError, charts, cli, images

log = logging.getLogger(__name__)

PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".webp"}
BUDGET = 10_000_000  # bytes of pictures in one report; base64 makes them a third longer
MAX_WIDTH, MAX_CELLS, MAX_CLUSTERS = 1600, 40, 200
SCORE_NAMES = {
    "acc": "Accuracy", "nmi": "NMI", "ari": "ARI", "miou": "Mean IoU", "pri": "PRI",
    "n_labels": "Labels", "n_segments": "Segments", "n_empty_clusters": "Empty clusters",
}  # fmt: skip
# of meta.json, what the head of the page says already
SHOWN = {"argv", "status", "date", "year", "tag", "seconds", "pid"}
STRIPS = ["prototype", "closest", "random", "furthest", "average"]


def write_report(run: str | Path) -> Path:
    """Makes RUN/report.html of what the run folder holds; what is absent or broken is left out.

    Raises UserError when it is not a run folder, or cannot be written to.
    """
    run = Path(run).resolve()
    if not _is_run(run):
        found = "holds no config.yml and no meta.json" if run.exists() else "does not exist"
        raise UserError(f"{run} {found}: expected a run folder, PAPER/runs/DATASET/NAME")
    scores, predictions = _json(run / "scores.json"), _predictions(run / "predictions.npz")
    embed = _Pictures(run)
    captions = _json(run / "images" / "captions.json")
    return _write(
        run / "report.html",
        "report.html.j2",
        head=_head(run),
        result=_result(scores, predictions),
        scores=_scores(scores),
        protocol=scores.get("protocol"),
        unlabelled="clusters" in predictions and "labels" not in predictions,
        pictures=[embed(path, captions) for path in _pictures_in(run / "images", captions)],
        clusters=_clusters(run, predictions, captions, embed),
        confusion=_confusion(predictions),
        charts=charts.charts(_text(run / "metrics.jsonl")),
        sections=_sections(run / "images", captions, embed),
        n_linked=embed.n_linked,
        config=_text(run / "config.yml"),
        log=_text(run / "train.log").splitlines()[-40:],
        files=_files(run),
    )


def write_index(root: str | Path) -> Path:
    """Makes ROOT/runs/index.html, a sortable table of the runs under ROOT/PAPER/runs/DATASET."""
    root = Path(root).resolve()
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: expected one with PAPER/runs/DATASET/NAME in it")
    path = root / "runs" / "index.html"
    rows = []
    for run in find_runs(root):
        scores = _json(run / "scores.json")
        target = run / "report.html" if (run / "report.html").exists() else run
        rows.append(
            {
                **_head(run),
                "scores": dict(_flat(scores)),
                "baseline": dict(_flat(scores.get("baseline"))),
                "link": _link(target, path.parent),
                "thumbnail": _thumbnail(run),
            }
        )
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    names.sort(key=lambda name: (list(SCORE_NAMES) + [name]).index(name))
    return _write(path, "index.html.j2", rows=rows, names=names)


def find_runs(root: Path) -> list[Path]:
    return [run for run in sorted(root.glob("*/runs/*/*")) if _is_run(run)]


def _is_run(run: Path) -> bool:
    return (run / "config.yml").is_file() or (run / "meta.json").is_file()


def _write(path: Path, template: str, **context: object) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "duration": _duration, "title": _title}
    html = environment.get_template(template).render(context)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(html, encoding="utf-8", errors="replace")
        half.replace(path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    return path


# --- what a run folder holds; a part that is missing or half-written is empty ---------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> dict:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _yaml(path: Path) -> dict:
    try:
        value = yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _predictions(path: Path) -> dict[str, np.ndarray]:
    """clusters (n,), and labels (n,) and classes where they are known; empty for other tasks."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("clusters", "labels", "classes") if key in file}
    except Exception:  # a half-written archive raises nearly anything
        return {}
    clusters = arrays.get("clusters")
    if clusters is None or clusters.ndim != 1 or clusters.dtype.kind not in "iu":
        return {}
    if "classes" in arrays and arrays["classes"].ndim != 1:
        del arrays["classes"]
    labels = arrays.get("labels")
    if labels is None or labels.shape != clusters.shape or labels.dtype.kind not in "iu":
        arrays.pop("labels", None)
    elif (labels < 0).all():
        del arrays["labels"]
    return arrays


# --- header and scores ----------------------------------------------------------------------------


def _head(run: Path) -> dict:
    meta, config = _json(run / "meta.json"), _yaml(run / "config.yml")
    runs = run.parent.parent
    paper = runs.parent if runs.name == "runs" else run.parent
    title = next((line for line in _text(paper / "README.md").splitlines() if line.strip()), "")
    training = config.get("training")
    seed = training.get("seed") if isinstance(training, dict) else None
    argv = meta.get("argv")
    return {
        "paper": paper.name,
        "title": title.lstrip("# ").strip() or paper.name,
        "dataset": run.parent.name,
        "name": run.name,
        "status": str(meta.get("status", "unknown")),
        "date": _date(meta),
        "seconds": meta.get("seconds"),
        "seed": seed,
        "command": shlex.join(map(str, argv)) if isinstance(argv, list) else "",
        "meta": {key: value for key, value in meta.items() if key not in SHOWN},
    }


def _date(meta: dict) -> str:
    try:
        return datetime.fromisoformat(meta["date"]).strftime("%Y-%m-%d %H:%M")
    except (KeyError, TypeError, ValueError):
        return ""


def _flat(scores: object, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of scores.json under its name: {"recall": {"1": 0.5}} is "recall 1"."""
    for key, value in scores.items() if isinstance(scores, dict) else ():
        if isinstance(value, dict) and key not in ("baseline", "published"):
            yield from _flat(value, f"{prefix}{key} ")
        elif charts.is_number(value) and key != "n":
            yield prefix + key, value


def _scores(scores: dict) -> list[dict]:
    """One card a score: ours, the baseline's and the published one, with a bar each within 0..1."""
    columns = [("this run", dict(_flat(scores)))]
    for column in ("baseline", "published"):
        if isinstance(scores.get(column), dict):
            name = scores[column].get("name", column)
            columns.append((str(name), dict(_flat(scores[column]))))
    cards = []
    for score in columns[0][1]:
        values = [(name, column[score]) for name, column in columns if score in column]
        bars = all(0 <= value <= 1 for _, value in values)
        cards.append({"name": score, "values": values, "bars": bars})
    return cards


def _result(scores: dict, predictions: dict[str, np.ndarray]) -> str:
    ours = dict(_flat(scores))
    if "acc" in ours:
        n = scores.get("n")
        of = f"{n:,} images" if charts.is_number(n) else "the images"
        sentence = f"{ours['acc']:.1%} of {of} lie in the cluster of their class"
        for key in ("baseline", "published"):
            other = dict(_flat(scores.get(key)))
            if "acc" in other:
                sentence += f"; {scores[key].get('name', key)}: {other['acc']:.1%}"
        return sentence + "."
    if ours:
        return ", ".join(f"{_title(name)} {_number(value)}" for name, value in ours.items()) + "."
    if predictions:
        clusters = predictions["clusters"]
        return f"{len(clusters):,} images in {len(np.unique(clusters[clusters >= 0]))} clusters."
    return "There are no scores yet."


# --- pictures -------------------------------------------------------------------------------------


class _Pictures:
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
            "title": caption.get("title") or _title(path.stem),
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
            return {**picture, "source": _link(path, self.run)}
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


def _thumbnail(run: Path) -> str:
    """The run's first picture, 128 pixels high at most; the first frame of an animation."""
    try:
        captions = _json(run / "images" / "captions.json")
        array = images.load(_pictures_in(run / "images", captions)[0])
    except (IndexError, UserError):
        return ""
    h, w = array.shape[:2]
    shrink = min(1, 128 / h, 256 / w)
    array = images.resize(array, (max(round(h * shrink), 1), max(round(w * shrink), 1)))
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return _data_uri(buffer.getvalue(), "PNG")


def _pictures_in(folder: Path, captions: dict, deep: bool = False) -> list[Path]:
    """Those that captions.json names come first and in its order, then the others by name."""
    found = folder.rglob("*") if deep else folder.glob("*")
    order = list(captions)
    return sorted(
        (path for path in found if path.suffix.lower() in PICTURES and path.is_file()),
        key=lambda path: ((order + [path.name]).index(path.name), path),
    )


def _sections(folder: Path, captions: dict, embed: _Pictures) -> list[dict]:
    """Every folder of pictures but clusters/, in the order of captions.json and then by name."""
    order = list(captions)
    names = sorted(
        path.name for path in folder.glob("*") if path.is_dir() and path.name != "clusters"
    )
    sections = []
    for name in sorted(names, key=lambda name: (order + [name]).index(name)):
        caption = captions.get(name) if isinstance(captions.get(name), dict) else {}
        inner = {key.removeprefix(f"{name}/"): value for key, value in captions.items()}
        found = _pictures_in(folder / name, inner, deep=True)
        if found:
            sections.append(
                {
                    "title": caption.get("title") or _title(name),
                    "caption": caption.get("caption"),
                    "pictures": [embed(path, captions) for path in found],
                }
            )
    return sections


# --- clusters -------------------------------------------------------------------------------------


def _clusters(
    run: Path, predictions: dict[str, np.ndarray], captions: dict, embed: _Pictures
) -> dict:
    """One card a cluster, the largest first: size, share, majority label, pictures."""
    folders = {
        int(path.name): path
        for path in (run / "images" / "clusters").glob("*")
        if path.is_dir() and path.name.isdecimal()
    }
    clusters = predictions.get("clusters")
    sizes: dict[int, int] = {}
    if clusters is not None:
        numbers, counts = np.unique(clusters[clusters >= 0], return_counts=True)
        sizes = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    cards = []
    order = sorted({*folders, *sizes}, key=lambda cluster: (-sizes.get(cluster, 0), cluster))
    for cluster in order[:MAX_CLUSTERS]:
        card: dict = {"name": cluster, "strips": []}
        if clusters is not None:
            card["size"] = sizes.get(cluster, 0)
            card["share"] = card["size"] / max(sum(sizes.values()), 1)
            card["relative"] = card["size"] / max([*sizes.values(), 1])
        if "labels" in predictions:
            card |= _majority(predictions, cluster)
        if cluster in folders:
            paths = _pictures_in(folders[cluster], {f"{name}.png": None for name in STRIPS})
            strips = [(path.stem, embed(path, {})) for path in paths]
            card["prototype"] = next((strip for name, strip in strips if name == "prototype"), None)
            card["strips"] = [strip for name, strip in strips if name != "prototype"]
        cards.append(card)
    caption = captions.get("clusters") if isinstance(captions.get("clusters"), dict) else {}
    return {"cards": cards, "n": len(order), "caption": caption.get("caption", "")}


def _majority(predictions: dict[str, np.ndarray], cluster: int) -> dict:
    labels = predictions["labels"][predictions["clusters"] == cluster]
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not len(values):
        return {}
    best = counts.argmax()
    majority = _class_name(predictions, values[best])
    return {"majority": majority, "purity": counts[best] / counts.sum()}


def _class_name(predictions: dict[str, np.ndarray], label: int) -> str:
    classes = predictions.get("classes", ())
    return str(classes[label]) if label < len(classes) else str(label)


def _confusion(predictions: dict[str, np.ndarray]) -> dict | None:
    """Labels as rows, clusters as columns; the columns stand so that matches are the diagonal.

    With more than MAX_CELLS rows the largest classes stay, and the clusters matched to them.
    """
    if "labels" not in predictions:
        return None
    known = (predictions["labels"] >= 0) & (predictions["clusters"] >= 0)
    labels, rows = np.unique(predictions["labels"][known], return_inverse=True)
    clusters, columns = np.unique(predictions["clusters"][known], return_inverse=True)
    if not known.any():
        return None
    table = np.zeros((len(labels), len(clusters)), np.int64)
    np.add.at(table, (rows, columns), 1)
    kept = np.sort(np.argsort(-table.sum(1), kind="stable")[:MAX_CELLS])
    matched_rows, matched = linear_sum_assignment(-table)
    of_row = dict(zip(matched_rows.tolist(), matched.tolist(), strict=True))
    order = [of_row[row] for row in kept.tolist() if row in of_row]
    others = set(range(len(clusters))) - set(order)
    order += sorted(others, key=lambda column: -table[:, column].sum())
    order = order[:MAX_CELLS]
    totals = table.sum(1)
    return {
        "clusters": clusters[order].tolist(),
        "rows": [
            {
                "label": _class_name(predictions, labels[row]),
                "total": int(totals[row]),
                "cells": [(int(table[row, c]), table[row, c] / totals[row]) for c in order],
            }
            for row in kept
        ],
        "n_classes": len(labels),
        "n_clusters": len(clusters),
    }


# --- provenance and words -------------------------------------------------------------------------


def _files(run: Path) -> list[dict]:
    """What lies in the run folder: name, bytes and, for a folder, the number of files."""
    files = []
    for path in sorted(run.iterdir()):
        if path.name.startswith(".") or path.name == "report.html":
            continue
        sizes = [size for file in _walk(path) if (size := _size(file)) is not None]
        count = len(sizes) if path.is_dir() else None
        link = _link(path, run)
        files.append({"name": path.name, "link": link, "bytes": sum(sizes), "count": count})
    return files


def _walk(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield str(path)
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in names)


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except OSError:  # the run goes on and has pruned a checkpoint
        return None


def _link(path: Path, start: Path) -> str:
    return quote(os.fsencode(os.path.relpath(path, start)))


def _title(name: str) -> str:
    words = name.replace("_", " ").strip()
    return SCORE_NAMES.get(name, words[:1].upper() + words[1:])


def _number(value: float) -> str:
    if isinstance(value, int) or (value.is_integer() and abs(value) > 1):
        return f"{int(value):,}"
    return f"{value:.3f}" if 0.1 <= abs(value) < 100 or value == 0 else f"{value:.4g}"


def _duration(seconds: object) -> str:
    if not charts.is_number(seconds):
        return ""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.report", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a run folder, or ROOT with --all")
    parser.add_argument("--all", action="store_true", help="a table of all runs under ROOT")
    arguments = parser.parse_args()
    if arguments.all:
        root = arguments.folder or Path(__file__).resolve().parents[1]
        for run in find_runs(root):
            if _is_out_of_date(run):
                log.info("report: %s", write_report(run))
        log.info("report: %s", write_index(root))
    elif arguments.folder:
        log.info("report: %s", write_report(arguments.folder))
    else:
        raise UserError("no run folder given: python -m common.report PAPER/runs/DATASET/NAME")


def _is_out_of_date(run: Path) -> bool:
    def changed(name: str) -> float:
        return (run / name).stat().st_mtime if (run / name).exists() else 0

    return changed("report.html") < max(map(changed, ("config.yml", "meta.json", "scores.json")))


if __name__ == "__main__":
    cli.main(main)
