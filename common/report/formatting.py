"""How a report writes names, numbers, durations and links."""

import os
from pathlib import Path
from urllib.parse import quote

from common.report import charts

SCORE_NAMES = {
    "acc": "Accuracy", "nmi": "NMI", "ari": "ARI", "miou": "Mean IoU", "iou": "IoU", "pri": "PRI",
    "weighted_iou": "Weighted IoU", "n_labels": "Labels", "n_segments": "Segments",
    "n_empty_clusters": "Empty clusters", "n_clusters": "Clusters", "knn": "k-NN",
    "knn_10": "k-NN of 10", "knn_20": "k-NN of 20",
    "retrieval_map": "Retrieval mAP", "nmi_previous": "NMI of the last two",
}  # fmt: skip


def link(path: Path, start: Path) -> str:
    """The URL of a path on a page that lies in the folder `start`."""
    return quote(os.fsencode(os.path.relpath(path, start)))


def title(name: str) -> str:
    """A file's or a score's name as a heading."""
    if name in SCORE_NAMES:
        return SCORE_NAMES[name]
    # a report has a score below another name with a space between them
    parts = (SCORE_NAMES.get(part, part.replace("_", " ")) for part in name.split())
    words = " ".join(parts).strip()
    return words[:1].upper() + words[1:]


def number(value: float) -> str:
    """Whole numbers with commas, others with three decimals or four digits."""
    if isinstance(value, int) or (value.is_integer() and abs(value) > 1):
        return f"{int(value):,}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.4g}"


def duration(seconds: object) -> str:
    """Two units at most, "1 min 14 s"; empty for what is no number."""
    if not charts.is_number(seconds):
        return ""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
