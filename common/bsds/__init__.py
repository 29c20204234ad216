"""Scores of segmentations against several human annotators (Berkeley segmentation benchmark)."""

from common.bsds.scores import (
    ImageCounts,
    benchmark,
    best_overlap_miou,
    components,
    overlaps,
    per_image_counts,
    pool,
    region_scores,
    summary,
)

__all__ = [
    "ImageCounts",
    "benchmark",
    "best_overlap_miou",
    "components",
    "overlaps",
    "per_image_counts",
    "pool",
    "region_scores",
    "summary",
]
