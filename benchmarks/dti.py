"""DTI clustering: our training step against the plain one of the tests, timed in turn.

Forward, backward and Adam with identity, affine, morpho and tps on, on digits as large as MNIST's.
"""

import statistics
import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from dti_torch import config, train
from tests.dti_torch.oracle import Oracle

BATCH, SIZE, N_PROTOTYPES, N_STEPS = 128, 28, 10, 7


def main() -> None:
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 16
    images = (255 * F.interpolate(digits, SIZE, mode="bilinear")).byte()
    print(
        f"DTI, a training step: batch {BATCH}, {SIZE}x{SIZE} gray, {N_PROTOTYPES} prototypes, "
        f"medians of {N_STEPS}, {torch.get_num_threads()} threads"
    )
    for name, encoder in (
        ("dtikmeans", "resnet20"),
        ("dtikmeans", "strided"),
        ("dtigmm", "resnet20"),
    ):
        ours, plain = (1000 * statistics.median(s) for s in step_seconds(name, encoder, images))
        print(
            f"{name:9} {encoder:8}  ours {ours:5.0f} ms  plain {plain:5.0f} ms  "
            f"ratio {plain / ours:4.1f}",
            flush=True,
        )


def step_seconds(name: str, encoder: str, images: Tensor) -> tuple[list[float], list[float]]:
    """Seconds of each of our steps and of the plain ones, after one of each that warms up."""
    cfg = config.Config(model=config.Model(name=name, encoder=encoder, n_prototypes=N_PROTOTYPES))
    state = train.initial_state(cfg, images)
    state.net.n_active = len(cfg.model.transformations)
    batch = images[:BATCH].float() / 255
    plain = Oracle(cfg.model, state.net.prototypes.detach())
    plain.copy_from(state.net)
    optimizer = torch.optim.Adam(plain.parameters(), cfg.training.lr)
    ours, theirs = [], []
    for _ in range(1 + N_STEPS):
        start = time.perf_counter()
        train.train_step(state, batch)
        middle = time.perf_counter()
        optimizer.zero_grad()
        plain.loss(batch).backward()
        optimizer.step()
        ours.append(middle - start)
        theirs.append(time.perf_counter() - middle)
    return ours[1:], theirs[1:]


if __name__ == "__main__":
    main()
