"""A few strokes on real photographs, against what people segmented."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from common import bsds, images
from common.datasets import segmentations
from dfc_tf.estimator import DFC

N_STROKES = 5


def strokes(truth):
    """A line in each of the largest segments, where it is widest: (h, w), -1 unmarked.

    Three fifths of that width long, and up to 3 pixels thick.
    """
    mask = np.full(truth.shape, -1)
    for label, segment in enumerate(largest(truth)):
        runs, _ = ndimage.label(segment, [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
        ys, xs = np.nonzero(runs == np.bincount(runs[segment]).argmax())
        margin = len(xs) // 5
        line = np.zeros(truth.shape, bool)
        line[max(ys[0] - 1, 0) : ys[0] + 2, xs[margin] : xs[-1 - margin] + 1] = True
        mask[line & segment] = label
    return mask


def largest(truth):
    names, sizes = np.unique(truth, return_counts=True)
    return [truth == name for name in names[np.argsort(-sizes, kind="stable")[:N_STROKES]]]


def overlap(labels, truth):
    """The mean best overlap of the segments that have a stroke."""
    pieces = bsds.components(labels)
    return np.mean([max(bsds.overlaps(pieces, [segment], 0)[0]) for segment in largest(truth)])


def test_strokes_raise_the_overlap_with_people():
    root = os.environ.get("DATA_ROOT", "data")
    if not (Path(root) / "BSDS500").is_dir():
        pytest.skip("BSDS500 is not below DATA_ROOT")
    found = segmentations.load("bsds500", "train", root)
    gains = []
    for i in range(0, 40, 10):
        image = images.load(found.paths[i])
        truth = min(found.ground_truths(i), key=lambda people: people.max())
        alone = DFC(random_state=0).fit_predict(image)
        helped = DFC(random_state=0).fit_predict(image, scribbles=strokes(truth))
        gains.append(overlap(helped, truth) - overlap(alone, truth))
    assert np.mean(gains) > 0.05
