"""What is to be looked at of a training of DINO: the curves; and its weights for others."""

from safetensors.torch import save_file

from common.run import Run
from unsup_seg_torch.encoders import Encoder

CAPTIONS = {
    "losses.png": (
        "Curves",
        "The loss, the teacher's entropy and what its outputs say of the images, both as shares of "
        "ln k. A collapse is where the last one is 0.",
    ),
    "neighbours.png": (
        "Neighbours",
        "Each row: an image, then those whose features are most alike, nearest first.",
    ),
}


def export(run: Run, encoder: Encoder) -> None:
    """RUN/model.safetensors: the teacher by timm's names, which timm loads as they are."""
    weights = {name: value.contiguous() for name, value in encoder.net.state_dict().items()}
    save_file(weights, run.path / "model.safetensors", encoder.describe())
