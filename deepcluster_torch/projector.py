"""Embeddings for TensorBoard's projector: tensorboard --logdir RUN/projector"""

import csv
from pathlib import Path

import numpy as np

from common import datasets, images

MAX_IMAGES = 5000  # of an upload that a browser still turns smoothly
SIDE, ROW = 32, 71  # pixels of an image in the sprite, and images in a row: 71 * 71 > MAX_IMAGES


def write(
    folder: Path, found: datasets.Images, embeddings: np.ndarray, clusters: np.ndarray
) -> None:
    """tensors.tsv, metadata.tsv, sprite.png and projector_config.pbtxt of at most MAX_IMAGES."""
    folder.mkdir(parents=True, exist_ok=True)
    some = np.sort(np.random.default_rng(0).permutation(len(embeddings))[:MAX_IMAGES])
    np.savetxt(folder / "tensors.tsv", embeddings[some], fmt="%.5g", delimiter="\t")
    with open(folder / "metadata.tsv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(["path", "cluster", "class"])
        for i in some:
            label = "" if found.labels is None else found.classes[found.labels[i]]
            name = " ".join(found.paths[i].split())  # a tab would be a column of its own
            rows.writerow([name, clusters[i], label])
    shown = np.stack([images.resize(found.images[i], SIDE) for i in some])
    n_columns = min(ROW, int(np.ceil(np.sqrt(len(shown)))))
    images.save_png(folder / "sprite.png", images.grid(shown, n_columns, pad=0))
    (folder / "projector_config.pbtxt").write_text(
        'embeddings {\n  tensor_name: "features"\n  tensor_path: "tensors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n  sprite {\n    image_path: "sprite.png"\n'
        f"    single_image_dim: {SIDE}\n    single_image_dim: {SIDE}\n  }}\n}}\n"
    )
