"""The clusters of a report: one card each, and the confusion matrix."""

from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from common.report import galleries

MAX_CELLS, MAX_CLUSTERS = 40, 200
STRIPS = ["prototype", "closest", "random", "farthest", "average"]
STRIP_HEIGHT = 160  # CSS pixels


def section(
    run: Path, predictions: dict[str, np.ndarray], captions: dict, embed: galleries.Embedder
) -> dict:
    """One card per cluster, the largest first: size, fraction, majority label, images."""
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
            card["fraction"] = card["size"] / max(sum(sizes.values()), 1)
            card["of_largest"] = card["size"] / max([*sizes.values(), 1])
        if "labels" in predictions:
            card |= _majority(predictions, cluster)
        if cluster in folders:
            paths = galleries.paths(folders[cluster], {f"{name}.png": None for name in STRIPS})
            strips = [(path.stem, embed(path, {}, STRIP_HEIGHT)) for path in paths]
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


def confusion_matrix(predictions: dict[str, np.ndarray]) -> dict | None:
    """Classes as rows, clusters as columns, sorted so that the best matches are the diagonal.

    Limited to the MAX_CELLS largest classes and the clusters matched to them. None without labels.
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
    column_of = dict(zip(matched_rows.tolist(), matched.tolist(), strict=True))
    order = [column_of[row] for row in kept.tolist() if row in column_of]
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
