"""Embeddings for the TensorBoard projector: tensorboard --logdir RUN/projector"""

import csv
from pathlib import Path

import numpy as np

from common import datasets, images

MAX_IMAGES = 5000  # a browser still rotates this many smoothly
SIDE, N_COLUMNS = 32, 71  # pixels of an image in the sprite, images per row: 71 * 71 > MAX_IMAGES


def write(
    folder: Path, dataset: datasets.Images, embeddings: np.ndarray, clusters: np.ndarray
) -> None:
    """Writes tensors.tsv, metadata.tsv, sprite.png and projector_config.pbtxt."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.sort(np.random.default_rng(0).permutation(len(embeddings))[:MAX_IMAGES])
    np.savetxt(folder / "tensors.tsv", embeddings[chosen], fmt="%.5g", delimiter="\t")
    with open(folder / "metadata.tsv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(["path", "cluster", "class"])
        for i in chosen:
            label = "" if dataset.labels is None else dataset.classes[dataset.labels[i]]
            name = " ".join(dataset.paths[i].split())  # a tab would start another column
            rows.writerow([name, clusters[i], label])
    tiles = np.stack([images.resize(dataset.images[i], SIDE) for i in chosen])
    n_columns = min(N_COLUMNS, int(np.ceil(np.sqrt(len(tiles)))))
    images.save_png(folder / "sprite.png", images.grid(tiles, n_columns, pad=0))
    (folder / "projector_config.pbtxt").write_text(
        'embeddings {\n  tensor_name: "features"\n  tensor_path: "tensors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n  sprite {\n    image_path: "sprite.png"\n'
        f"    single_image_dim: {SIDE}\n    single_image_dim: {SIDE}\n  }}\n}}\n"
    )
