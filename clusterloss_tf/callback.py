"""Retrieval metrics of held-out images during `model.fit`."""

from pathlib import Path

import numpy as np

from common import metrics
from common.estimators import check_labels
from common.tf import keras


class RetrievalCallback(keras.callbacks.Callback):
    """Adds val_recall_at_1, val_map_at_r, ... to the logs after each epoch.

    images (n, ...) as the model takes them, labels (n,) or (n, 1). path, ending in .weights.h5:
    where to save the weights with the highest Recall@1. A callback that monitors these metrics must
    come later in the list of callbacks. Raises ValueError for invalid labels.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        path: str | Path | None = None,
        batch_size: int = 256,
    ):
        super().__init__()
        self.images, self.batch_size = images, batch_size
        self.labels = check_labels(np.asarray(labels).ravel(), len(images))
        self.path, self.best = path, -1.0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        embeddings = self.model.predict(self.images, self.batch_size, verbose=0)
        scores = metrics.retrieval_scores(embeddings, self.labels)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in scores.items()})
        if scores["recall_at_1"] > self.best:
            self.best = scores["recall_at_1"]
            if self.path:
                self.model.save_weights(self.path)
