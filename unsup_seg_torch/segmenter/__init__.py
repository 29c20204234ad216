"""Segmenter (Strudel et al. 2021): supervised semantic segmentation with a transformer."""
