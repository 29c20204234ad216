"""Datasets as numpy arrays: images and labels by name, or a folder of images."""

from common.datasets.loading import NAMES, Images, choose_splits, find, load

__all__ = ["NAMES", "Images", "choose_splits", "find", "load"]
