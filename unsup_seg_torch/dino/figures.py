"""Captions of a DINO run's figures, and its weights for other code."""

from common.pytorch import checkpoint
from common.run import Run
from unsup_seg_torch.vit.encoder import Encoder

CAPTIONS = {
    "losses.png": (
        "Curves",
        "Loss, entropy of the teacher's outputs, and information that they carry about the images, "
        "as fractions of ln k. An information of 0 is a collapse.",
    ),
    "neighbors.png": (
        "Nearest neighbors",
        "Each row: an image, then those with the most similar features.",
    ),
}


def export(run: Run, encoder: Encoder) -> None:
    """RUN/model.safetensors: the teacher's encoder with timm's names, which timm loads."""
    checkpoint.write(run.path / "model.safetensors", encoder.net.state_dict(), encoder.describe())
