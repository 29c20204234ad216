"""Saves the training state, and resumes from it exactly."""

from functools import partial

from torch import Tensor

from common.pytorch import checkpoint
from common.run import Checkpoint, Run
from deepcluster_torch import config
from deepcluster_torch.modes.state import State, new_head

TENSORS = ("assignments", "memory", "losses")
PROGRESS = ("epoch", "batch", "best_loss", "n_bad_epochs", "n_lr_drops")


def save(run: Run, state: State, clusters: dict[str, Tensor] | None = None) -> None:
    """Writes a checkpoint; raises UserError if a weight is NaN, and keeps the previous checkpoint.

    clusters: tensors of the final clustering, once it is there.
    """
    checkpoint.check_finite(state.net, state.step)
    weights = state.net.state_dict()
    tensors = {name: getattr(state, name) for name in TENSORS}
    for part, optimizer in state.optimizers.items():
        tensors |= checkpoint.optimizer_tensors(optimizer, f"{part}.")
    files = {"model": weights, "state": tensors} | ({"clusters": clusters} if clusters else {})
    run.checkpoint(
        state.step,
        {
            f"{name}.safetensors": partial(checkpoint.write, tensors=content)
            for name, content in files.items()
        },
        mode=state.mode,
        **{name: getattr(state, name) for name in PROGRESS},
        n_labels=len(weights["head.weight"]) if "head.weight" in weights else None,
    )


def resume(training: config.Training, run: Run, state: State) -> None:
    """Restores the state from the run's latest checkpoint, if there is one."""
    latest = run.latest_checkpoint()
    if latest is None:
        run.rewind()
        return
    load_net(training, state, latest)
    path = latest.path / "state.safetensors"
    saved = checkpoint.read(path)
    own = {name: saved.pop(name) for name in TENSORS if name in saved}
    checkpoint.copy_tensors({name: getattr(state, name) for name in TENSORS}, own, path)
    for part, optimizer in state.optimizers.items():
        checkpoint.load_optimizer(optimizer, saved, path, f"{part}.")
    for name in PROGRESS:
        setattr(state, name, latest.progress[name])
    state.step = latest.step
    run.rewind(state.step)


def load_net(training: config.Training, state: State, latest: Checkpoint) -> None:
    """Loads the network; raises UserError for a checkpoint of another model."""
    n_labels = latest.progress["n_labels"]
    if n_labels and "head" in state.net:
        new_head(training, state, n_labels)
    checkpoint.load_module(state.net, latest.path / "model.safetensors")
