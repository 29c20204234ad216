"""From datasets to batches: loading, a cache of decoded folders, sampling and augmentation."""
