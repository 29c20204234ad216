"""Weights and all else that a training is, in and out of safetensors, which hold numbers only."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common import UserError
from common.hdf5 import compare_shapes
from common.run import Run


def save(
    run: Run,
    net: nn.Module,
    optimizers: dict[str, torch.optim.Optimizer],
    sums: dict[str, Tensor],
    step: int,
    header: dict[str, str] | None = None,
    **progress: int,
) -> None:
    """Writes a checkpoint; raises UserError, and leaves the one before, if a weight is NaN.

    header: what the file of weights says of them beside their names.
    """
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    for name, value in weights.items():
        if not value.isfinite().all():
            raise UserError(f"{name} became NaN or infinite at step {step}: lower training.lr")
    tensors = {f"sum.{name}": value for name, value in sums.items()}
    for which, optimizer in optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            tensors |= {
                f"{which}.{i}.{name}": value.contiguous()
                for name, value in moments.items()
                if value is not None
            }
    run.checkpoint(
        step,
        {
            "model.safetensors": lambda path: save_file(weights, path, header),
            "state.safetensors": lambda path: save_file(tensors, path),
        },
        **progress,
    )


def resume(
    run: Run,
    net: nn.Module,
    optimizers: dict[str, torch.optim.Optimizer],
    sums: dict[str, Tensor],
) -> tuple[int, dict]:
    """The step and the progress of the run's latest checkpoint, once all is filled; else 0."""
    found = run.latest_checkpoint()
    if found is None:
        run.rewind()
        return 0, {}
    load(net, found.path / "model.safetensors")
    path = found.path / "state.safetensors"
    tensors = read(path)
    try:
        for name, value in sums.items():
            value.copy_(tensors.pop(f"sum.{name}"))
        moments: dict[str, dict[int, dict[str, Tensor]]] = {which: {} for which in optimizers}
        for key, value in tensors.items():
            which, i, name = key.split(".")
            parameters = [p for group in optimizers[which].param_groups for p in group["params"]]
            if value.ndim:  # the fused Adam reads raw memory: it must lie as the parameter does
                value = torch.empty_like(parameters[int(i)]).copy_(value)
            moments[which].setdefault(int(i), {})[name] = value
    except (KeyError, ValueError, IndexError, RuntimeError):
        raise UserError(f"{path} is of another model or optimizer") from None
    for which, optimizer in optimizers.items():
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments[which], "param_groups": groups})
    run.rewind(found.step)
    return found.step, found.progress


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; raises UserError for anything but safetensors."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own kinds, and those of the system
        raise UserError(f"{path} is no readable checkpoint: {error}") from None


def load(net: nn.Module, path: Path) -> None:
    """Fills a net; raises UserError with the first difference if the file is of another one."""
    saved = read(path)
    compare_shapes(path, saved, net.state_dict())
    net.load_state_dict(saved)
