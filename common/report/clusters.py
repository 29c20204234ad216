"""The clusters of a report: one card each, and the confusion matrix."""

from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from common.report.galleries import Pictures, pictures_in

MAX_CELLS, MAX_CLUSTERS = 40, 200
STRIPS = ["prototype", "closest", "random", "furthest", "average"]


def section(run: Path, predictions: dict[str, np.ndarray], captions: dict, embed: Pictures) -> dict:
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
            paths = pictures_in(folders[cluster], {f"{name}.png": None for name in STRIPS})
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


def confusion(predictions: dict[str, np.ndarray]) -> dict | None:
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
