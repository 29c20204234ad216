"""Label maps and ground-truth files for the tests of BSDS scores."""

import numpy as np
import scipy.io


def halves(column, shape=(6, 8)):
    """Two regions, the second starting at this column."""
    return (np.arange(shape[1]) >= column).astype(int) * np.ones(shape, int)


def cell(arrays):
    """A MATLAB cell."""
    content = np.empty((1, len(arrays)), object)
    for i, array in enumerate(arrays):
        content[0, i] = array
    return content


def write_ground_truth(folder, name, maps):
    """NAME.mat in the format of BSDS, without boundaries; one map per annotator."""
    folder.mkdir(exist_ok=True)
    structs = [{"Segmentation": labels.astype(np.uint16)} for labels in maps]
    scipy.io.savemat(folder / f"{name}.mat", {"groundTruth": cell(structs)})


def slow_scores(labels, truth):
    """Covered area, Rand index over all pairs of pixels, variation of information in bits."""
    covered = sum(
        np.sum(truth == segment) * best_iou(labels, truth == segment)
        for segment in np.unique(truth)
    )
    same, same_true = (flat[:, None] == flat for flat in (labels.ravel(), truth.ravel()))
    upper = np.triu_indices(labels.size, 1)
    vi = 0.0
    for part in np.unique(labels):
        for segment in np.unique(truth):
            both = np.mean((labels == part) & (truth == segment))
            if both:
                a, b = np.mean(labels == part), np.mean(truth == segment)
                vi -= both * (np.log2(both / a) + np.log2(both / b))
    return covered, np.mean((same == same_true)[upper]), vi


def best_iou(labels, segment):
    """Highest intersection over union of a segment (bool) with one of the labels."""
    return max(
        np.sum((labels == part) & segment) / np.sum((labels == part) | segment)
        for part in np.unique(labels)
    )
