"""Means of what training steps return, between two lines of the log."""

import time
from collections.abc import Iterable

import torch
from torch import Tensor


class RunningMetrics:
    """Sums of scalar tensors, kept on the device: only `means` waits for it.

    They are part of a checkpoint, so that a resumed run logs what an uninterrupted one would have.
    """

    def __init__(self, names: Iterable[str], device: torch.device):
        self.sums = {name: torch.zeros((), device=device) for name in names}
        self.restart_clock()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The sums by the names they have in a checkpoint."""
        return {f"sum.{name}": total for name, total in self.sums.items()}

    def restart_clock(self) -> None:
        """Starts to measure images_per_second."""
        self._start, self._n_images = time.perf_counter(), 0

    def add(self, values: dict[str, Tensor], n_images: int) -> None:
        """Adds the scalars that a step on n_images returned."""
        for name, value in values.items():
            self.sums[name] += value
        self._n_images += n_images

    def means(self, n_steps: int) -> dict[str, float]:
        """Means over the last n_steps, and images_per_second; starts again from zero."""
        means = {name: float(total) / n_steps for name, total in self.sums.items()}
        means["images_per_second"] = self._n_images / (time.perf_counter() - self._start)
        for total in self.sums.values():
            total.zero_()
        self.restart_clock()
        return means
