"""A run folder as one HTML file that opens offline, and all runs as tables.

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
from common.report import charts, clusters, formatting, galleries, scores

log = logging.getLogger(__name__)

# keys of meta.json that the page shows in its header, or that are of no use to a reader
HIDDEN_META = {"argv", "status", "date", "year", "tag", "seconds", "pid"}
LOG_LINES = 40


def write_report(run: str | Path) -> Path:
    """Writes RUN/report.html from the run folder, without parts that are missing or broken.

    Raises UserError if RUN is not a run folder, or if it cannot write.
    """
    run = Path(run).resolve()
    if not _is_run(run):
        problem = "has no config.yml and no meta.json" if run.exists() else "does not exist"
        raise UserError(f"{run} {problem}: expected a run folder, PAPER/runs/DATASET/NAME")
    values, predictions = _json(run / "scores.json"), _predictions(run / "predictions.npz")
    folder, embed = run / "images", galleries.Embedder(run)
    captions = _json(folder / "captions.json")
    return _write(
        run / "report.html",
        "report.html.j2",
        header=_header(run),
        result=scores.sentence(values, *_cluster_counts(predictions)),
        tiles=scores.tiles(values),
        scores=scores.table(values),
        protocol=values.get("protocol"),
        is_unlabeled="clusters" in predictions and "labels" not in predictions,
        images=[embed(path, captions) for path in galleries.paths(folder, captions)],
        clusters=clusters.section(run, predictions, captions, embed),
        confusion=clusters.confusion_matrix(predictions),
        charts=charts.read(_text(run / "metrics.jsonl")),
        sections=galleries.sections(folder, captions, embed),
        n_linked=embed.n_linked,
        config=_text(run / "config.yml"),
        log=_text(run / "train.log").splitlines()[-LOG_LINES:],
        files=_files(run),
    )


def write_index(root: str | Path) -> Path:
    """Writes ROOT/runs/index.html: a sortable table for each paper of ROOT/PAPER/runs/DATASET.

    Raises UserError if ROOT is not a folder, or if it cannot write.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: expected one with PAPER/runs/DATASET/NAME in it")
    path = root / "runs" / "index.html"
    runs = find_runs(root)
    groups: dict[tuple[str, str], dict] = {}
    for run in runs:
        row = _row(run, path.parent)
        key = row["paper"], row["title"]
        groups.setdefault(key, {"paper": key[0], "title": key[1], "rows": []})["rows"].append(row)
    for group in groups.values():
        known = {key: score for row in group["rows"] for key, score in row["scores"].items()}
        group["scores"] = scores.key_scores(known)
        group["has_models"] = any(row["model"] for row in group["rows"])
    return _write(path, "index.html.j2", groups=list(groups.values()), n_runs=len(runs))


def _row(run: Path, start: Path) -> dict:
    columns, folder = scores.columns(_json(run / "scores.json")), run / "images"
    target = run / "report.html" if (run / "report.html").exists() else run
    return {
        **_header(run),
        "scores": columns[""][1],
        "baseline": columns.get("baseline", ("", {}))[1],
        "link": formatting.relative_url(target, start),
        "thumbnail": galleries.thumbnail(folder, _json(folder / "captions.json")),
    }


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
        "number": formatting.format_number,
        "duration": formatting.format_duration,
        "display_name": formatting.display_name,
    }
    html = environment.get_template(template).render(context)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(html, encoding="utf-8", errors="replace")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


# --- reading a run folder; files that are missing or incomplete read as empty ---------------------


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
    """clusters (n,), labels (n,) and classes where known; empty for tasks without clusters."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("clusters", "labels", "classes") if key in file}
    except Exception:  # an incomplete archive raises nearly anything
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


def _cluster_counts(predictions: dict[str, np.ndarray]) -> tuple[int, int]:
    """The number of images and of clusters, 0 and 0 without clusters."""
    clusters = predictions.get("clusters", np.empty(0))
    return len(clusters), len(np.unique(clusters[clusters >= 0]))


def _header(run: Path) -> dict:
    meta, config = _json(run / "meta.json"), _yaml(run / "config.yml")
    runs = run.parent.parent
    paper = runs.parent if runs.name == "runs" else run.parent
    model, training = (_section(config, name) for name in ("model", "training"))
    argv = meta.get("argv")
    return {
        "paper": paper.name,
        "title": _title(paper / str(model.get("name", "")) / "README.md")
        or _title(paper / "README.md")
        or paper.name,
        "dataset": run.parent.name,
        "model": model.get("name"),
        "name": run.name,
        "status": str(meta.get("status", "unknown")),
        "date": _date(meta),
        "seconds": meta.get("seconds"),
        "seed": training.get("seed"),
        "command": shlex.join(["python", *map(str, argv)]) if isinstance(argv, list) else "",
        "meta": {key: value for key, value in meta.items() if key not in HIDDEN_META},
    }


def _section(config: dict, name: str) -> dict:
    return config[name] if isinstance(config.get(name), dict) else {}


def _title(readme: Path) -> str:
    """The first line of a README without its markup; empty if there is none."""
    first = next((line for line in _text(readme).splitlines() if line.strip()), "")
    return first.lstrip("# ").strip()


def _date(meta: dict) -> str:
    try:
        return datetime.fromisoformat(meta["date"]).strftime("%Y-%m-%d %H:%M")
    except (KeyError, TypeError, ValueError):
        return ""


# --- files and the command ------------------------------------------------------------------------


def _files(run: Path) -> list[dict]:
    """The entries of the run folder: name, bytes and, for a folder, the number of files."""
    files = []
    for path in sorted(run.iterdir()):
        if path.name.startswith(".") or path.name == "report.html":
            continue
        sizes = [size for file in _walk(path) if (size := _size(file)) is not None]
        count = len(sizes) if path.is_dir() else None
        link = formatting.relative_url(path, run)
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
    except OSError:  # deleted meanwhile by a run in progress
        return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.report", description=__doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="a run folder; with --all the folder of the papers (default: this repository)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="write ROOT/runs/index.html, tables of all runs, and every outdated report",
    )
    args = parser.parse_args()
    if args.all:
        root = args.folder or Path(__file__).resolve().parents[2]
        for run in find_runs(root):
            if _is_outdated(run):
                log.info("report: %s", write_report(run))
        log.info("report: %s", write_index(root))
    elif args.folder:
        log.info("report: %s", write_report(args.folder))
    else:
        raise UserError("no run folder given: python -m common.report PAPER/runs/DATASET/NAME")


def _is_outdated(run: Path) -> bool:
    def modified(name: str) -> float:
        return (run / name).stat().st_mtime if (run / name).exists() else 0

    return modified("report.html") < max(map(modified, ("config.yml", "meta.json", "scores.json")))
