"""Clustering of features: whitening, k-means, power iteration, Ward merging, the final clusters."""
