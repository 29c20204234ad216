"""Feature clustering: a training step against a plain PyTorch one, alternating, in two processes.

481x321, p = q = 100, two blocks, SGD: forward, both losses, backward, update, number of labels.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

HEIGHT, WIDTH, N_CHANNELS, N_STEPS, N_REPEATS = 321, 481, 100, 3, 5

OURS = """
import json, sys, time
import numpy as np
from dfc_tf import config, data, train

h, w, n, n_steps, precision = json.loads(sys.argv[1])
cfg = config.Config(
    model=config.Model(width=n, n_clusters=n),
    training=config.Training(max_side=None, check_interval=n_steps, n_iterations=10**6,
                             min_labels=0, precision=precision),
)
image = np.random.default_rng(0).random((h, w, 3)).astype(np.float32)
state = train.State(cfg, 3)
state.begin_batch(0)
inputs = train.Inputs(cfg, [data.Sample(image)])
train.train_chunk(cfg, state, inputs)
for line in sys.stdin:
    began = time.perf_counter()
    train.train_chunk(cfg, state, inputs)
    print((time.perf_counter() - began) / n_steps, flush=True)
"""

# The same network, losses and optimizer in straightforward code; labels are counted on the host,
# as in a loop that stops at a number of labels.
PLAIN = """
import json, sys, time
import numpy as np, torch
from torch import nn
from torch.nn import functional as F

h, w, n, n_steps, _ = json.loads(sys.argv[1])
image = np.random.default_rng(0).random((1, 3, h, w)).astype(np.float32)
image = torch.from_numpy(image)
net = nn.Sequential(
    nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(n),
    nn.Conv2d(n, n, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(n),
    nn.Conv2d(n, n, 1), nn.BatchNorm2d(n),
)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

def step():
    optimizer.zero_grad()
    responses = net(image)
    labels = responses.argmax(1)
    n_labels = len(np.unique(labels.numpy()))
    vertical = (responses[:, :, 1:] - responses[:, :, :-1]).abs().mean()
    horizontal = (responses[:, :, :, 1:] - responses[:, :, :, :-1]).abs().mean()
    loss = F.cross_entropy(responses, labels) + vertical + horizontal
    loss.backward()
    optimizer.step()
    return n_labels, loss.item()

step()
for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(n_steps):
        step()
    print((time.perf_counter() - began) / n_steps, flush=True)
"""


def main() -> None:
    print(
        f"DFC, a training step: {WIDTH}x{HEIGHT}, p = q = {N_CHANNELS}, 2 blocks, "
        f"medians of {N_REPEATS} x {N_STEPS} steps"
    )
    plain = start(PLAIN, "float32")
    for precision in ("float32", "bfloat16"):
        ours = start(OURS, precision)
        pairs = [(seconds(ours), seconds(plain)) for _ in range(N_REPEATS)]
        stop(ours)
        ours_ms, plain_ms = (
            1000 * statistics.median(column) for column in zip(*pairs, strict=True)
        )
        print(
            f"{precision:8}  ours {ours_ms:6.0f} ms  plain float32 {plain_ms:6.0f} ms  "
            f"ratio {plain_ms / ours_ms:4.1f}",
            flush=True,
        )
    stop(plain)


def start(code: str, precision: str) -> subprocess.Popen:
    """A process that takes N_STEPS steps per input line; PyTorch and TensorFlow need their own."""
    arguments = json.dumps([HEIGHT, WIDTH, N_CHANNELS, N_STEPS, precision])
    return subprocess.Popen(
        [sys.executable, "-c", code, arguments],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def seconds(process: subprocess.Popen) -> float:
    """Seconds per step."""
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of the benchmark ended with {process.wait()}")
    return float(line)


def stop(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.wait()


if __name__ == "__main__":
    main()
