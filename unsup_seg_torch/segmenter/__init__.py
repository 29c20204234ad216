"""Segmenter (Strudel et al. 2021): a transformer that learns labels of pixels from labels."""
