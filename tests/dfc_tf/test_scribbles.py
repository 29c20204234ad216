"""A few strokes on photographs, scored against human segmentations."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from common import bsds, images
from common.datasets import segmentations
from dfc_tf.estimator import DFC

N_STROKES = 5


def strokes(ground_truth):
    """A horizontal line in each of the largest segments, at its widest row: (h, w), -1 unmarked.

    Its length is 3/5 of that width, its thickness up to 3 pixels.
    """
    mask = np.full(ground_truth.shape, -1)
    for label, segment in enumerate(largest(ground_truth)):
        runs, _ = ndimage.label(segment, [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
        ys, xs = np.nonzero(runs == np.bincount(runs[segment]).argmax())
        margin = len(xs) // 5
        line = np.zeros(ground_truth.shape, bool)
        line[max(ys[0] - 1, 0) : ys[0] + 2, xs[margin] : xs[-1 - margin] + 1] = True
        mask[line & segment] = label
    return mask


def largest(ground_truth):
    names, sizes = np.unique(ground_truth, return_counts=True)
    return [ground_truth == name for name in names[np.argsort(-sizes, kind="stable")[:N_STROKES]]]


def mean_overlap(labels, ground_truth):
    """The mean best overlap of the segments that have a stroke."""
    segments = bsds.components(labels)
    overlaps = [max(bsds.overlaps(segments, [each], 0)[0]) for each in largest(ground_truth)]
    return np.mean(overlaps)


def test_strokes_raise_the_overlap_with_human_segments():
    root = os.environ.get("DATA_ROOT", "data")
    if not (Path(root) / "BSDS500").is_dir():
        pytest.skip("DATA_ROOT has no BSDS500")
    dataset = segmentations.load("bsds500", "train", root)
    gains = []
    for i in range(0, 40, 10):
        image = images.load(dataset.paths[i])
        coarsest = min(dataset.ground_truths(i), key=lambda labels: labels.max())
        without = DFC(random_state=0).fit_predict(image)
        with_strokes = DFC(random_state=0).fit_predict(image, scribbles=strokes(coarsest))
        gains.append(mean_overlap(with_strokes, coarsest) - mean_overlap(without, coarsest))
    assert np.mean(gains) > 0.05
