"""DTI clustering: our training step and the reference implementation of the tests, alternately.

Forward, backward and Adam with identity, affine, morpho and tps, on digits in the size of MNIST.
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
        f"DTI, one training step: batch {BATCH}, {SIZE}x{SIZE} gray, {N_PROTOTYPES} prototypes, "
        f"medians of {N_STEPS}, {torch.get_num_threads()} threads"
    )
    for name, encoder in (
        ("dtikmeans", "resnet20"),
        ("dtikmeans", "strided"),
        ("dtigmm", "resnet20"),
    ):
        ours, reference = (1000 * statistics.median(s) for s in step_seconds(name, encoder, images))
        print(
            f"{name:9} {encoder:8}  ours {ours:5.0f} ms  reference {reference:5.0f} ms  "
            f"ratio {reference / ours:4.1f}",
            flush=True,
        )


def step_seconds(name: str, encoder: str, images: Tensor) -> tuple[list[float], list[float]]:
    """Seconds per step, ours and of the reference implementation, after one warm-up step each."""
    cfg = config.Config(model=config.Model(name=name, encoder=encoder, n_prototypes=N_PROTOTYPES))
    state = train.initial_state(cfg, images)
    state.net.n_active = len(cfg.model.transformations)
    batch = images[:BATCH].float() / 255
    reference = Oracle(cfg.model, state.net.prototypes.detach())
    reference.copy_from(state.net)
    optimizer = torch.optim.Adam(reference.parameters(), cfg.training.lr)
    ours, theirs = [], []
    for _ in range(1 + N_STEPS):
        start = time.perf_counter()
        train.train_step(state, batch)
        middle = time.perf_counter()
        optimizer.zero_grad()
        reference.loss(batch).backward()
        optimizer.step()
        ours.append(middle - start)
        theirs.append(time.perf_counter() - middle)
    return ours[1:], theirs[1:]


if __name__ == "__main__":
    main()
