"""W-Net: our soft normalized cut, training step and region scores against plain ones, in turn.

The cut of 20 labels at 224x224, forward and backward: time and peak memory. The gradients of a step
at width 64, against the same network with dense 3x3 convolutions. Covering, Rand index and
variation of information of 100 label maps of the size of BSDS images at 20 scales.
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
from tests.unsup_seg_torch.reference import plain_soft_ncut
from unsup_seg_torch.wnet import loss, model

K, SIZE, N_STEPS, N_NET_STEPS = 20, 224, 7, 3
SHAPE, N_IMAGES, N_SCALES, N_ANNOTATORS = (321, 481), 100, 20, 5

# A process of its own, since the peak memory of a process never decreases.
PEAK = """
import re, sys
from pathlib import Path
from benchmarks import unsup_seg

probabilities, images = unsup_seg.inputs()
function = unsup_seg.CUTS[sys.argv[1]]
small = tuple(each[..., :16, :16].detach().contiguous() for each in (probabilities, images))
unsup_seg.cut(function, small[0].requires_grad_(), small[1])
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
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
    print(f"soft normalized cut: K {K}, {SIZE}x{SIZE}, r 5, {torch.get_num_threads()} threads")
    probabilities, images = inputs()
    calls = {
        name: lambda function=function: cut(function, probabilities, images)
        for name, function in CUTS.items()
    }
    print_ratio(seconds(calls, N_STEPS))
    peaks = {name: peak(PEAK, name) for name in CUTS}
    print(
        f"peak   ours {peaks['ours']:6.1f} MB  plain {peaks['plain']:6.1f} MB  "
        f"share {peaks['ours'] / peaks['plain']:.1%}",
        flush=True,
    )
    print(f"W-Net, gradients of a step: width 64, {SIZE}x{SIZE}, batch 1")
    nets = {"ours": model.WNet(K, 64), "plain": make_dense(model.WNet(K, 64))}
    calls = {name: lambda net=net: step(net, images) for name, net in nets.items()}
    print_ratio(seconds(calls, N_NET_STEPS))
    compare_scores()


def compare_scores() -> None:
    """Region scores of random segmentations, ours and scikit-learn's."""
    n = folder_scores.n_cores()
    print(f"region scores: {N_IMAGES} images, {N_SCALES} scales, {n} processes")
    tasks = [random_segmentations(seed) for seed in range(10)] * (N_IMAGES // 10)
    start = time.perf_counter()
    counts = folder_scores.each(region_scores, tasks, n, "scoring")
    print(f"all    ours {time.perf_counter() - start:6.1f} s, with the start of the processes")
    calls = {"ours": lambda: region_scores(tasks[0]), "plain": lambda: plain_scores(*tasks[0])}
    print_ratio(seconds(calls, 1))
    ours, plain = counts[0].regions, plain_scores(*tasks[0])
    np.testing.assert_allclose([ours.pri, ours.vi], plain, atol=1e-9)


def random_segmentations(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Voronoi cells: a hierarchy with a map (h, w) per scale, and a map (h, w) per annotator."""
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
        for k in random.integers(5, 40, N_ANNOTATORS)  # as many segments as humans draw
    ]
    return scales, truths


def region_scores(task: tuple[list[np.ndarray], list[np.ndarray]]) -> bsds.ImageCounts:
    return bsds.per_image_counts(*task, with_boundaries=False)


def plain_scores(scales: list[np.ndarray], truths: list[np.ndarray]) -> np.ndarray:
    """Rand index and variation of information (2, scales) by scikit-learn."""
    scores = np.zeros((2, len(scales)))
    for i, labels in enumerate(scales):
        for truth in truths:
            a, b = labels.ravel(), truth.ravel()
            scores[0, i] += cluster.rand_score(a, b)
            entropies = sum(mutual_info_score(each, each) for each in (a, b))
            scores[1, i] += (entropies - 2 * mutual_info_score(a, b)) / np.log(2)
    return scores / len(truths)


def make_dense(net: model.WNet) -> model.WNet:
    """Replaces each separable convolution by a dense 3x3 one."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, model.Separable):
                inputs, outputs = child.depthwise.in_channels, child.pointwise.out_channels
                setattr(module, name, nn.Conv2d(inputs, outputs, 3, padding=1))
    return net


def step(net: model.WNet, images: Tensor) -> None:
    """Both gradients, without the two updates, which are the same for both networks."""
    loss.soft_ncut(net.encode(images), images).mean().backward()
    loss.reconstruction(net(images)[1], images).backward()
    net.zero_grad()


def seconds(calls: dict[str, Callable[[], object]], n: int) -> dict[str, list[float]]:
    """Times of n calls of each, in turn, after a warmup."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + n):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: each[1:] for name, each in times.items()}


def print_ratio(times: dict[str, list[float]]) -> None:
    """The median times in milliseconds, and their ratio."""
    ours, plain = (1000 * statistics.median(times[name]) for name in ("ours", "plain"))
    ratio = f"{plain / ours:5.2f}"
    print(f"step   ours {ours:6.0f} ms  plain {plain:6.0f} ms  ratio {ratio}", flush=True)


def peak(program: str, name: str) -> float:
    """The megabytes that a program prints when it is run with this argument."""
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
