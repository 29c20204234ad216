"""How a report writes names, numbers, durations and links."""

import math
import os
import re
from pathlib import Path
from urllib.parse import quote

NAMES = {
    "acc": "Accuracy", "nmi": "NMI", "ari": "ARI", "ami": "AMI", "purity": "Purity",
    "nmi_previous": "NMI to previous assignments", "balance": "Cluster balance",
    "distance": "Distance to centroid", "map_at_r": "MAP@R", "r_precision": "R-Precision",
    "retrieval_map": "mAP", "knn": "k-NN", "linear": "Linear probe",
    "covering": "Covering", "pri": "PRI", "f": "Boundary F",
    "vi": "VI ↓", "vi_ods": "VI (ODS) ↓", "vi_ois": "VI (OIS) ↓",
    "precision": "Boundary precision", "recall": "Boundary recall",
    "miou": "mIoU", "iou": "IoU", "pixel_accuracy": "Pixel accuracy",
    "mean_accuracy": "Mean class accuracy", "weighted_iou": "Frequency-weighted IoU",
    "all": "mIoU (all)", "fine": "mIoU (fine)", "coarse": "mIoU (coarse)", "mean": "mIoU (mean)",
    "n": "Images", "n_labels": "Labels per image", "n_segments": "Segments per image",
    "n_regions": "Regions per image", "n_used": "Clusters in use",
    "n_unmatched": "Queries alone in their class",
    "lr": "Learning rate", "images_per_second": "Images per second", "soft_ncut": "Soft N-cut",
    "proportion": "Cluster proportions", "transformations": "Active transformations",
}  # fmt: skip
NUMBERED = {"recall_at": "Recall@{}", "knn": "k-NN (k = {})"}
VARIANTS = {
    "ods": "ODS", "ois": "OIS", "best": "best",
    "all": "all", "fine": "fine", "coarse": "coarse", "mean": "mean",
}  # fmt: skip
UNITS = {"vi": "bits"}
ROUNDING_NOISE = 1e-12  # smaller values are shown as 0


def display_name(key: str) -> str:
    """The name of a score or a logged metric in the notation of the literature, where known."""
    if key in NAMES:
        return NAMES[key]
    stem, _, last = key.rpartition("_")
    if stem in NUMBERED and last.isdecimal():
        return NUMBERED[stem].format(last)
    if stem in NAMES and last in VARIANTS:
        return f"{NAMES[stem]} ({VARIANTS[last]})"
    return sentence_case(key.removeprefix("n_"))


def sentence_case(name: str) -> str:
    """A file name or key as words: "first_filters" is "First filters"."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def format_number(value: float) -> str:
    """Whole numbers with commas, others with 3 decimals or about 3 significant digits."""
    if abs(value) < ROUNDING_NOISE:
        return "0"
    if isinstance(value, int) or (value.is_integer() and abs(value) > 1):
        return f"{int(value):,}" if abs(value) < 1e15 else f"{value:.4g}"
    if abs(value) < 0.01 or abs(value) >= 1e6:
        return f"{value:.3g}"
    decimals = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{decimals}f}"


def format_score(key: str, value: float, deviation: float | None = None) -> str:
    """A score with its unit, if it has one, and ± its deviation to two significant digits."""
    if deviation is not None and deviation >= ROUNDING_NOISE:
        decimals = min(max(1 - math.floor(math.log10(deviation)), 0), 6)
        text = f"{value:,.{decimals}f} ± {deviation:,.{decimals}f}"
    elif key.startswith("n_") and isinstance(value, float) and not value.is_integer():
        text = f"{value:,.1f}"  # a mean of counts
    else:
        text = format_number(value) + (" ± 0" if deviation is not None else "")
    unit = UNITS.get(re.sub(r"_(ods|ois)$", "", key))
    return f"{text} {unit}" if unit else text


def format_duration(seconds: object) -> str:
    """Two units at most, "1 min 14 s"; empty if `seconds` is not a number."""
    if not is_number(seconds):
        return ""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def is_number(value: object) -> bool:
    """Whether a value from a JSON file can be shown as a number: no boolean, NaN or infinity."""
    return bool(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
    )


def relative_url(path: Path, start: Path) -> str:
    """The URL of a path for a page in the folder `start`."""
    return quote(os.fsencode(os.path.relpath(path, start)))
