"""Warnings about images that leave nothing to cluster: equal ones, or those of one color."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


def count_distinct(images: Iterable[np.ndarray], limit: int) -> int:
    """The number of distinct images, counted up to a limit: it reads no more than it needs to."""
    seen: set[bytes] = set()
    for image in images:
        seen.add(hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest())
        if len(seen) == limit:
            break
    return len(seen)


def few_distinct(images: Sequence[np.ndarray], n_clusters: int) -> str:
    """A warning if images (n, ...) are all equal, or fewer than n_clusters are distinct; else "".

    To be logged by an entry script or warned of by an estimator, once per run. Also "" for fewer
    images than clusters, which are an error elsewhere.
    """
    if len(images) < max(n_clusters, 2):
        return ""
    n_distinct = count_distinct(images, max(n_clusters, 2))
    if n_distinct == 1:
        return f"all {len(images)} images are equal: there is only one cluster to find"
    if n_distinct < n_clusters:
        return (
            f"only {n_distinct} of {len(images)} images are distinct, fewer than the {n_clusters} "
            "clusters: the others stay empty or share images with them"
        )
    return ""


def is_one_color(image: np.ndarray) -> bool:
    """Whether all pixels of an image (h, w, c) are equal."""
    return bool((image == image[:1, :1]).all())


def one_color(are_one_color: Sequence[bool]) -> str:
    """A warning if some images, given by `is_one_color`, are of one color; else ""."""
    n, n_plain = len(are_one_color), sum(are_one_color)
    if not n_plain:
        return ""
    if n == 1:
        return "the image has only one color: it has one segment"
    return f"{n_plain} of {n} images have only one color: they have one segment"


@contextlib.contextmanager
def without_kmeans_warning() -> Iterator[None]:
    """Silences scikit-learn's warning about fewer distinct points than clusters."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
