"""Mean and standard deviation of the scores of several runs of one config.

python -m common.summary RUN [RUN ...]
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import UserError, cli


class Summary(NamedTuple):
    names: list[str]
    values: np.ndarray  # (runs, names)
    mean: np.ndarray  # (names,)
    deviation: np.ndarray  # (names,), with n - 1; NaN for a single run
    best: int | None  # the run with the lowest training loss, if the runs have one


def summarize(runs: Sequence[Path]) -> Summary:
    """Mean and standard deviation of every score that all runs have, and the best run.

    The best run is chosen by its training loss, without labels. Raises UserError for a run without
    scores and for runs without a common score.
    """
    scores = [_scores(Path(run)) for run in runs]
    names = [name for name in scores[0] if all(name in other for other in scores)]
    if not names:
        raise UserError(f"the {len(runs)} runs have no score in common: give runs of one config")
    values = np.array([[score[name] for name in names] for score in scores])
    deviation = values.std(axis=0, ddof=1) if len(runs) > 1 else np.full(len(names), np.nan)
    best = int(values[:, names.index("loss")].argmin()) if "loss" in names else None
    return Summary(names, values, values.mean(axis=0), deviation, best)


def table(runs: Sequence[Path], summary: Summary) -> str:
    """One line per run, then mean, standard deviation and the run with the lowest loss."""
    rows = list(zip([Path(run).name for run in runs], summary.values, strict=True))
    rows += [("mean", summary.mean), ("standard deviation", summary.deviation)]
    if summary.best is not None:
        rows.append((f"lowest loss: {rows[summary.best][0]}", summary.values[summary.best]))
    width = max(len(title) for title, _ in rows)
    lines = [" " * width + "".join(f"{name:>18}" for name in summary.names)]
    for title, values in rows:
        cells = ("-" if math.isnan(value) else f"{value:.4f}" for value in values)
        lines.append(f"{title:{width}}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def _scores(run: Path) -> dict[str, float]:
    try:
        scores = json.loads((run / "scores.json").read_text())
    except (OSError, ValueError):
        raise UserError(f"{run} has no readable scores.json: run evaluate.py on it first") from None
    return {
        name: float(value)
        for name, value in scores.items()
        if isinstance(value, int | float) and math.isfinite(value) and name != "n"
    }


def main() -> None:
    parser = cli.Parser(
        "%(prog)s RUN [RUN ...]",
        prog="python -m common.summary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="run folders that evaluate.py has scored"
    )
    runs = parser.parse_args().runs
    sys.stdout.write(table(runs, summarize(runs)) + "\n")


if __name__ == "__main__":
    cli.main(main)
