"""W-Net: our soft normalised cut, step and scores of regions against the plain ones, in turn.

The cut at 20 labels and 224x224, forward and backward, in seconds and in memory at its peak; one
step of the alternation at width 64, against the same network with dense 3x3 convolutions; covering,
Rand index and variation of information of 100 pictures as large as those of BSDS at 20 scales.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree
from sklearn.metrics import cluster, mutual_info_score
from torch import Tensor, nn

from common import bsds, malloc_tuning
from common.bsds import folder_scores
from tests.unsup_seg_torch.dense import plain_soft_ncut
from unsup_seg_torch import loss, wnet

K, SIZE, N_STEPS, N_NET_STEPS = 20, 224, 7, 3
SHAPE, N_PICTURES, N_SCALES, N_ANNOTATORS = (321, 481), 100, 20, 5

# A process of its own, since the peak of one never falls again.
PEAK = """
import re, sys
from pathlib import Path
from benchmarks import unsup_seg

probabilities, images = unsup_seg.inputs()
function = unsup_seg.CUTS[sys.argv[1]]
small = tuple(each[..., :16, :16].detach().contiguous() for each in (probabilities, images))
unsup_seg.cut(function, small[0].requires_grad_(), small[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = kilobytes("VmRSS")
unsup_seg.cut(function, probabilities, images)
print((kilobytes("VmHWM") - before) / 1024)
"""


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    images = torch.rand(1, 3, SIZE, SIZE) * 0.1 + 0.4
    return torch.randn(1, K, SIZE, SIZE).softmax(1).requires_grad_(), images


def cut(function: Callable, probabilities: Tensor, images: Tensor) -> None:
    probabilities.grad = None
    function(probabilities, images).sum().backward()


CUTS = {"ours": loss.soft_ncut, "plain": plain_soft_ncut}


def main() -> None:
    malloc_tuning.disable_trimming()
    print(f"soft normalised cut: K {K}, {SIZE}x{SIZE}, r 5, {torch.get_num_threads()} threads")
    probabilities, images = inputs()
    found = seconds(
        {
            name: lambda function=function: cut(function, probabilities, images)
            for name, function in CUTS.items()
        },
        N_STEPS,
    )
    say(found["ours"], found["plain"])
    peaks = {name: peak(PEAK, name) for name in CUTS}
    print(
        f"peak   ours {peaks['ours']:6.1f} MB  plain {peaks['plain']:6.1f} MB  "
        f"share {peaks['ours'] / peaks['plain']:.1%}",
        flush=True,
    )
    print(f"W-Net, a step of the alternation: width 64, {SIZE}x{SIZE}, batch 1")
    nets = {"ours": wnet.WNet(K, 64), "plain": densely(wnet.WNet(K, 64))}
    found = seconds(
        {name: lambda net=net: step(net, images) for name, net in nets.items()}, N_NET_STEPS
    )
    say(found["ours"], found["plain"])
    benchmark()


def benchmark() -> None:
    """Nobody's pictures: the cells of random points, joined, against the cells of fewer points."""
    n = folder_scores.n_cores()
    print(f"scores of regions: {N_PICTURES} pictures, {N_SCALES} scales, {n} processes")
    tasks = [cells(seed) for seed in range(10)] * (N_PICTURES // 10)
    began = time.perf_counter()
    found = folder_scores.each(region_scores, tasks, n, "scoring")
    print(f"all    ours {time.perf_counter() - began:6.1f} s, the processes' start included")
    calls = {"ours": lambda: region_scores(tasks[0]), "plain": lambda: plain_scores(*tasks[0])}
    times = seconds(calls, 1)
    say(times["ours"], times["plain"])
    ours, plain = found[0].regions, plain_scores(*tasks[0])
    np.testing.assert_allclose([ours.pri, ours.vi], plain, atol=1e-9)


def cells(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A hierarchy (h, w) for each scale, and as many segments as people see for each annotator."""
    random = np.random.default_rng(seed)
    pixels = np.stack(np.indices(SHAPE), -1).reshape(-1, 2)
    points = random.random((600, 2)) * SHAPE
    finest = KDTree(points).query(pixels)[1].astype(np.uint16)
    scales = [
        KDTree(points[:k]).query(points)[1].astype(np.uint16)[finest].reshape(SHAPE)
        for k in np.geomspace(600, 2, N_SCALES).astype(int)
    ]
    truths = [
        KDTree(random.random((k, 2)) * SHAPE).query(pixels)[1].astype(np.uint16).reshape(SHAPE)
        for k in random.integers(5, 40, N_ANNOTATORS)
    ]
    return scales, truths


def region_scores(task: tuple[list[np.ndarray], list[np.ndarray]]) -> bsds.ImageCounts:
    return bsds.per_image_counts(*task, with_boundaries=False)


def plain_scores(scales: list[np.ndarray], truths: list[np.ndarray]) -> np.ndarray:
    """Rand index and variation of information (2, scales) as scikit-learn has them."""
    found = np.zeros((2, len(scales)))
    for i, labels in enumerate(scales):
        for truth in truths:
            a, b = labels.ravel(), truth.ravel()
            found[0, i] += cluster.rand_score(a, b)
            own = sum(mutual_info_score(each, each) for each in (a, b))
            found[1, i] += (own - 2 * mutual_info_score(a, b)) / np.log(2)
    return found / len(truths)


def densely(net: wnet.WNet) -> wnet.WNet:
    """The same net with one dense 3x3 convolution in the place of each separable one."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, wnet.Separable):
                inputs, outputs = child.depthwise.in_channels, child.pointwise.out_channels
                setattr(module, name, nn.Conv2d(inputs, outputs, 3, padding=1))
    return net


def step(net: wnet.WNet, images: Tensor) -> None:
    """Both gradients, without the two updates, which are the same for both nets."""
    loss.soft_ncut(net.encode(images), images).mean().backward()
    loss.reconstruction(net(images)[1], images).backward()
    net.zero_grad()


def seconds(calls: dict[str, Callable[[], None]], n: int) -> dict[str, list[float]]:
    """Of every call in turn n times, after one of each that warms up."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + n):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - start)
    return {name: each[1:] for name, each in found.items()}


def say(ours: list[float], plain: list[float]) -> None:
    mine, theirs = (1000 * statistics.median(each) for each in (ours, plain))
    print(
        f"step   ours {mine:6.0f} ms  plain {theirs:6.0f} ms  ratio {theirs / mine:4.1f}",
        flush=True,
    )


def peak(program: str, name: str) -> float:
    """The megabytes that a program prints, a process of its own since a peak never falls again."""
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
