"""The curves of a report, with coordinates for the template to draw as SVG."""

import json
import math

import numpy as np

from common.report.formatting import display_name, is_number

MAX_POINTS = 500  # per line
MINOR = {"lr", "images_per_second", "iterations_per_second"}


def read(metrics: str) -> list[dict]:
    """The text of a metrics.jsonl as one chart per quantity and split.

    Keys such as proportion/0 and proportion/1 share a chart.
    """
    quantities: dict[tuple[str, str, str], dict[str, dict[float, float]]] = {}
    for line in metrics.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # the last line of a run that was killed
            continue
        if not isinstance(row, dict):
            continue
        axis = "step" if is_number(row.get("step")) else "epoch"
        if not is_number(row.get(axis)):
            continue
        for key, value in row.items():
            if key in ("step", "epoch") or not is_number(value):
                continue
            quantity, _, name = key.partition("/")
            lines = quantities.setdefault((str(row.get("split", "")), quantity, axis), {})
            # a resumed run repeats some steps: the later value is kept
            lines.setdefault(name or quantity, {})[row[axis]] = value
    return [_chart(*key, lines) for key, lines in quantities.items()]


def _chart(split: str, quantity: str, axis: str, lines: dict[str, dict[float, float]]) -> dict:
    left, right, top, bottom = 46, 350, 8, 168  # the template's view box is 360 by 190
    x_low, x_high = _range([step for points in lines.values() for step in points])
    y_low, y_high = _range([value for points in lines.values() for value in points.values()])
    if 0 < y_low < 0.4 * y_high:
        y_low = 0

    def x(step: float) -> float:
        return round(left + (step - x_low) / (x_high - x_low) * (right - left), 1)

    def y(value: float) -> float:
        return round(bottom - (value - y_low) / (y_high - y_low) * (bottom - top), 1)

    polylines, last = [], None
    for name, points in lines.items():
        thinned = _thin(sorted(points.items()))
        polylines.append((name, " ".join(f"{x(step)},{y(value)}" for step, value in thinned)))
        last = thinned[-1][1]
    return {
        "split": split,
        "name": display_name(quantity),
        "is_minor": quantity in MINOR,
        "axis": axis,
        "last": last if len(lines) == 1 else None,
        "x_ticks": [(x(tick), text) for tick, text in _ticks(x_low, x_high)],
        "y_ticks": [(y(tick), text) for tick, text in _ticks(y_low, y_high)],
        "lines": polylines,
    }


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < max(1e-12 * abs(high), 1e-100):
        pad = max(abs(low) / 10, 1e-3)
        return low - pad, high + pad
    return low, high


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS: the lowest and highest of each segment, so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return points
    thinned = []
    for segment in np.array_split(np.arange(len(points)), MAX_POINTS // 2):
        values = [points[i][1] for i in segment]
        extremes = {segment[int(np.argmin(values))], segment[int(np.argmax(values))]}
        thinned += [points[i] for i in sorted(extremes)]
    return thinned


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """About five round numbers from low to high, and their text."""
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 5)
    ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    if max(abs(low), abs(high)) >= 1e4:
        return [(tick, f"{tick / 1e6:g}M" if step >= 1e6 else f"{tick / 1e3:g}k") for tick in ticks]
    if step < 1e-4:
        return [(tick, f"{tick:.2g}") for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(tick, f"{tick:.{decimals}f}") for tick in ticks]
