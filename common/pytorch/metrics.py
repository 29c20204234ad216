"""Running means of training metrics between two lines of the log."""

import time
from collections.abc import Iterable

import torch
from torch import Tensor


class RunningMetrics:
    """Sums of scalar tensors on the device, so that only `means` synchronizes with it.

    Save `tensors` in checkpoints: a resumed run then logs the same values as without a stop.
    """

    def __init__(self, names: Iterable[str], device: torch.device):
        self.sums = {name: torch.zeros((), device=device) for name in names}
        self.restart_clock()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The sums by their names in a checkpoint."""
        return {f"sum.{name}": total for name, total in self.sums.items()}

    def restart_clock(self) -> None:
        """Restarts the measurement of images_per_second."""
        self._start, self._n_images = time.perf_counter(), 0

    def add(self, values: dict[str, Tensor], n_images: int) -> None:
        """Adds the scalars of a training step on n_images."""
        for name, value in values.items():
            self.sums[name] += value
        self._n_images += n_images

    def means(self, n_steps: int) -> dict[str, float]:
        """Means over the last n_steps, and images_per_second; resets both."""
        means = {name: float(total) / n_steps for name, total in self.sums.items()}
        means["images_per_second"] = self._n_images / (time.perf_counter() - self._start)
        for total in self.sums.values():
            total.zero_()
        self.restart_clock()
        return means
