"""A run folder as one HTML file that opens offline, and all runs as one table.

python -m common.report RUN            writes RUN/report.html
python -m common.report --all [ROOT]   writes ROOT/runs/index.html and every outdated report
"""

import argparse
import json
import logging
import os
import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import jinja2
import numpy as np
import yaml

from common import UserError
from common.report import charts, clusters, formatting, galleries

log = logging.getLogger(__name__)

# of meta.json, what the head of the page says already
SHOWN = {"argv", "status", "date", "year", "tag", "seconds", "pid"}


def write_report(run: str | Path) -> Path:
    """Makes RUN/report.html of what the run folder holds; what is absent or broken is left out.

    Raises UserError when it is not a run folder, or cannot be written to.
    """
    run = Path(run).resolve()
    if not _is_run(run):
        found = "holds no config.yml and no meta.json" if run.exists() else "does not exist"
        raise UserError(f"{run} {found}: expected a run folder, PAPER/runs/DATASET/NAME")
    scores, predictions = _json(run / "scores.json"), _predictions(run / "predictions.npz")
    folder, embed = run / "images", galleries.Pictures(run)
    captions = _json(folder / "captions.json")
    return _write(
        run / "report.html",
        "report.html.j2",
        head=_head(run),
        result=_result(scores, predictions),
        scores=_scores(scores),
        protocol=scores.get("protocol"),
        unlabelled="clusters" in predictions and "labels" not in predictions,
        pictures=[embed(path, captions) for path in galleries.pictures_in(folder, captions)],
        clusters=clusters.section(run, predictions, captions, embed),
        confusion=clusters.confusion(predictions),
        charts=charts.charts(_text(run / "metrics.jsonl")),
        sections=galleries.sections(folder, captions, embed),
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
        scores, folder = _json(run / "scores.json"), run / "images"
        target = run / "report.html" if (run / "report.html").exists() else run
        rows.append(
            {
                **_head(run),
                "scores": dict(_flat(scores)),
                "baseline": dict(_flat(scores.get("baseline"))),
                "link": formatting.link(target, path.parent),
                "thumbnail": galleries.thumbnail(folder, _json(folder / "captions.json")),
            }
        )
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    names.sort(key=lambda name: (list(formatting.SCORE_NAMES) + [name]).index(name))
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
    environment.filters |= {
        "number": formatting.number,
        "duration": formatting.duration,
        "title": formatting.title,
    }
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
    assignments = arrays.get("clusters")
    if assignments is None or assignments.ndim != 1 or assignments.dtype.kind not in "iu":
        return {}
    if "classes" in arrays and arrays["classes"].ndim != 1:
        del arrays["classes"]
    labels = arrays.get("labels")
    if labels is None or labels.shape != assignments.shape or labels.dtype.kind not in "iu":
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
        shown = (
            f"{formatting.title(name)} {formatting.number(value)}" for name, value in ours.items()
        )
        return ", ".join(shown) + "."
    if predictions:
        assignments = predictions["clusters"]
        n_clusters = len(np.unique(assignments[assignments >= 0]))
        return f"{len(assignments):,} images in {n_clusters} clusters."
    return "There are no scores yet."


# --- files and the command ------------------------------------------------------------------------


def _files(run: Path) -> list[dict]:
    """What lies in the run folder: name, bytes and, for a folder, the number of files."""
    files = []
    for path in sorted(run.iterdir()):
        if path.name.startswith(".") or path.name == "report.html":
            continue
        sizes = [size for file in _walk(path) if (size := _size(file)) is not None]
        count = len(sizes) if path.is_dir() else None
        link = formatting.link(path, run)
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.report", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a run folder, or ROOT with --all")
    parser.add_argument("--all", action="store_true", help="a table of all runs under ROOT")
    arguments = parser.parse_args()
    if arguments.all:
        root = arguments.folder or Path(__file__).resolve().parents[2]
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
