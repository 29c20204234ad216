"""Segmenter and DINO: our steps against the plain ones in float32, in turn; memory; counting.

Plain is the same network with attention written out, AdamW parameter by parameter, and for DINO one
crop after the other, a loop over pairs of views and over parameters. Then the megabytes that the
attention of a 480x480 image at patch 8 takes, and the seconds of the confusion matrices of 233
frames of 480x360.
"""

import copy
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.unsup_seg import peak, seconds
from common import metrics
from unsup_seg_torch import encoders, precision
from unsup_seg_torch.dino import config as dino_config
from unsup_seg_torch.dino import train as dino
from unsup_seg_torch.segmenter import config as segmenter_config
from unsup_seg_torch.segmenter import train as segmenter

CPU = torch.device("cpu")
N_STEPS = 5
LIMIT_MB = 1500  # of the attention

# Megabytes of the whole process, with PyTorch and the weights.
PEAK = """
import re, sys
from pathlib import Path
from benchmarks import unsup_seg_transformers as bench

encoder = bench.small_8()
look = {"ours": bench.row, "whole": bench.whole}[sys.argv[1]]
look(encoder, 64)
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
look(encoder, 480)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def main() -> None:
    torch.manual_seed(0)
    bf16 = precision.has_bfloat16(CPU)
    print(f"{torch.get_num_threads()} threads, {'bfloat16' if bf16 else 'no bfloat16: float32'}")
    print("Segmenter: width 192, depth 6, patch 12, 180x240, batch 4, AdamW")
    say(seconds(segmenter_steps(), N_STEPS))
    print("DINO: width 128, depth 4, patch 4, 2 views of 32 and 4 of 16, batch 32, AdamW")
    say(seconds(dino_steps(), N_STEPS))
    peaks = {name: peak(PEAK, name) for name in ("ours", "whole")}
    print("attention of the class token: ViT-S/8, 480x480")
    print(f"peak   ours {peaks['ours']:6.0f} MB  whole matrix {peaks['whole']:6.0f} MB  "
          f"limit {LIMIT_MB} MB", flush=True)  # fmt: skip
    print(f"confusion matrices: 233 frames of 480x360  {counting():.2f} s")


# ---- steps


def segmenter_steps() -> dict[str, Callable[[], object]]:
    cfg = segmenter_config.Config(
        dataset=segmenter_config.Dataset(crop=(180, 240)),
        model=segmenter_config.Model(
            patch_size=12, width=192, depth=6, decoder="linear", cells=4, drop_path=0.0
        ),
        training=segmenter_config.Training(optimizer="adamw"),
    )
    shown, labels = torch.rand(4, 3, 180, 240), torch.randint(0, 11, (4, 180, 240))
    ours = segmenter.begin(cfg, 11, CPU)
    net = written_out(copy.deepcopy(ours.net))
    descent = torch.optim.AdamW(net.parameters(), 1e-3, foreach=False)

    def plain() -> None:
        value = F.cross_entropy(net(shown), labels, ignore_index=255)
        descent.zero_grad()
        value.backward()
        descent.step()

    return {"ours": lambda: segmenter.train_step(cfg, ours, shown, labels, 1e-3), "plain": plain}


def dino_steps() -> dict[str, Callable[[], object]]:
    cfg = dino_config.Config(
        model=dino_config.Model(
            patch_size=4, width=128, depth=4, n_heads=4, drop_path=0.0, hidden=512, bottleneck=128,
            n_outputs=1024,
        ),
        training=dino_config.Training(large=32, small=16, n_small=4),
    )  # fmt: skip
    views = [torch.rand(32, 3, side, side) for side in (32, 32, 16, 16, 16, 16)]
    ours = dino.begin(cfg, CPU)
    ours.step = 10  # past the frozen last layer
    net = written_out(copy.deepcopy(ours.net))
    learned = [p for p in net.student.parameters() if p.requires_grad]
    descent = torch.optim.AdamW(learned, 1e-3, foreach=False)

    def plain() -> None:
        with torch.no_grad():
            taught = [net.teacher([view])[0] for view in views[:2]]
        said = [net.student([view])[0] for view in views]
        wanted = [((each - net.centre) / 0.04).softmax(1) for each in taught]
        terms = [
            -(target * (each / 0.1).log_softmax(1)).sum(1).mean()
            for i, target in enumerate(wanted)
            for j, each in enumerate(said)
            if i != j
        ]
        descent.zero_grad()
        (sum(terms) / len(terms)).backward()
        for parameter in learned:
            norm = float(parameter.grad.norm())
            if norm > 3:
                parameter.grad.mul_(3 / norm)
        descent.step()
        with torch.no_grad():
            pairs = zip(net.teacher.parameters(), net.student.parameters(), strict=True)
            for old, new in pairs:
                old.mul_(0.996).add_(new, alpha=0.004)
            net.centre.mul_(0.9).add_(torch.cat(taught).mean(0), alpha=0.1)

    return {"ours": lambda: dino.train_step(cfg, ours, views, 1000, 5), "plain": plain}


def written_out(net: nn.Module) -> nn.Module:
    """The same network with its attention as products of whole matrices."""
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return net


def say(found: dict[str, list[float]]) -> None:
    mine, theirs = (1000 * statistics.median(found[name]) for name in ("ours", "plain"))
    print(
        f"step   ours {mine:6.0f} ms  plain {theirs:6.0f} ms  ratio {theirs / mine:4.2f}",
        flush=True,
    )


# ---- memory and counting


def small_8() -> encoders.Encoder:
    return encoders.build("vit_small_patch8_224", (224, 224)).eval()


def row(encoder: encoders.Encoder, side: int) -> Tensor:
    from unsup_seg_torch import attention

    return attention.class_rows(encoder, torch.rand(1, 3, side, side))


@torch.no_grad()
def whole(encoder: encoders.Encoder, side: int) -> list[Tensor]:
    """All of the last block's attention, by a hook, as tools for attention maps take it."""
    last, kept = encoder.net.blocks[-1].attn, []
    last.fused_attn = False
    handle = last.attn_drop.register_forward_hook(lambda module, given, found: kept.append(found))
    encoder(torch.rand(1, 3, side, side))
    handle.remove()
    return kept


def counting() -> float:
    random = np.random.default_rng(0)
    truth = random.integers(0, 12, (233, 360, 480)).astype(np.uint8)
    said = random.integers(0, 11, truth.shape).astype(np.uint8)
    start = time.perf_counter()
    counts = np.zeros((11, 11), np.int64)
    for pair in zip(truth, said, strict=True):
        counts += metrics.confusion(*pair, 11, 11)
    metrics.confusion_scores(counts)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
