"""Plots the logged metrics of a run as an image file."""

import json
from collections.abc import Sequence
from pathlib import Path

from common.run import Run


def write_curves(run: Run, names: Sequence[str], log_scale: Sequence[str] = ()) -> Path:
    """Writes RUN/images/losses.png: one plot per metric over the steps.

    names: of metrics.jsonl; log_scale: those with a logarithmic axis.
    """
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    figure = Figure((7, 1 + 2 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, names, strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axis.plot(*zip(*points, strict=True))
        axis.set_ylabel(name.replace("_", " "))
        if name in log_scale:
            axis.set_yscale("log")
    axis.set_xlabel("step")
    path = run.images / "losses.png"
    figure.savefig(path, dpi=100)
    return path
