"""Segmenter and DINO: our training steps against plain ones in float32, in turn; memory.

Plain is the same network with unfused attention and AdamW with a loop over the parameters, and for
DINO with a forward pass per view and a loop over the pairs of views. Then the peak memory of the
attention maps of a 480x480 image at patch size 8, and the time of the confusion matrices of 233
frames of 480x360.
"""

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.unsup_seg import peak, print_ratio, seconds
from common import metrics
from common.pytorch.precision import has_bfloat16
from unsup_seg_torch.dino import config as dino_config
from unsup_seg_torch.dino import train as dino
from unsup_seg_torch.segmenter import config as segmenter_config
from unsup_seg_torch.segmenter import train as segmenter
from unsup_seg_torch.vit import attention, encoder

CPU = torch.device("cpu")
N_STEPS = 5
LIMIT_MB = 1500  # of the attention maps

# Prints megabytes of the whole process, with PyTorch and the weights.
PEAK = """
import re, sys
from pathlib import Path
from benchmarks import unsup_seg_transformers as bench

net = bench.vit_small_8()
attend = {"ours": bench.class_attention, "whole": bench.whole_attention}[sys.argv[1]]
attend(net, 64)
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
attend(net, 480)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def main() -> None:
    torch.manual_seed(0)
    precision = "bfloat16" if has_bfloat16(CPU) else "no bfloat16: float32"
    print(f"{torch.get_num_threads()} threads, {precision}")
    print("Segmenter: width 192, depth 6, patch 12, 180x240, batch 4, AdamW")
    print_ratio(seconds(segmenter_steps(), N_STEPS))
    print("DINO: width 128, depth 4, patch 4, 2 views of 32 and 4 of 16, batch 32, AdamW")
    print_ratio(seconds(dino_steps(), N_STEPS))
    peaks = {name: peak(PEAK, name) for name in ("ours", "whole")}
    print("attention of the class token: ViT-S/8, 480x480")
    print(f"peak   ours {peaks['ours']:6.0f} MB  whole matrix {peaks['whole']:6.0f} MB  "
          f"limit {LIMIT_MB} MB", flush=True)  # fmt: skip
    print(f"confusion matrices: 233 frames of 480x360  {confusion_seconds():.2f} s")


# ---- training steps


def segmenter_steps() -> dict[str, Callable[[], object]]:
    cfg = segmenter_config.Config(
        dataset=segmenter_config.Dataset(crop=(180, 240)),
        model=segmenter_config.Model(
            patch_size=12, width=192, depth=6, decoder="linear", cells=4, drop_path=0.0
        ),
        training=segmenter_config.Training(optimizer="adamw"),
    )
    images, labels = torch.rand(4, 3, 180, 240), torch.randint(0, 11, (4, 180, 240))
    state = segmenter.initial_state(cfg, 11, CPU)
    net = unfuse(copy.deepcopy(state.net))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, foreach=False)

    def plain() -> None:
        loss = F.cross_entropy(net(images), labels, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {"ours": lambda: segmenter.train_step(cfg, state, images, labels, 1e-3), "plain": plain}


def dino_steps() -> dict[str, Callable[[], object]]:
    cfg = dino_config.Config(
        model=dino_config.Model(
            patch_size=4, width=128, depth=4, n_heads=4, drop_path=0.0, hidden=512, bottleneck=128,
            n_outputs=1024,
        ),
        training=dino_config.Training(large=32, small=16, n_small=4),
    )  # fmt: skip
    views = [torch.rand(32, 3, side, side) for side in (32, 32, 16, 16, 16, 16)]
    state = dino.initial_state(cfg, CPU)
    state.step = 10  # past the steps in which the last layer is frozen
    net = unfuse(copy.deepcopy(state.net))
    learned = [p for p in net.student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, 1e-3, foreach=False)

    def plain() -> None:
        with torch.no_grad():
            teacher_outputs = [net.teacher([view])[0] for view in views[:2]]
        student_outputs = [net.student([view])[0] for view in views]
        targets = [((output - net.center) / 0.04).softmax(1) for output in teacher_outputs]
        losses = [
            -(target * (output / 0.1).log_softmax(1)).sum(1).mean()
            for i, target in enumerate(targets)
            for j, output in enumerate(student_outputs)
            if i != j
        ]
        optimizer.zero_grad()
        (sum(losses) / len(losses)).backward()
        for parameter in learned:
            norm = float(parameter.grad.norm())
            if norm > 3:
                parameter.grad.mul_(3 / norm)
        optimizer.step()
        with torch.no_grad():
            pairs = zip(net.teacher.parameters(), net.student.parameters(), strict=True)
            for teacher, student in pairs:
                teacher.mul_(0.996).add_(student, alpha=0.004)
            net.center.mul_(0.9).add_(torch.cat(teacher_outputs).mean(0), alpha=0.1)

    return {"ours": lambda: dino.train_step(cfg, state, views, 1000, 5), "plain": plain}


def unfuse(net: nn.Module) -> nn.Module:
    """Computes attention as products of whole matrices."""
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return net


# ---- memory and confusion matrices


def vit_small_8() -> encoder.Encoder:
    return encoder.build("vit_small_patch8_224", (224, 224)).eval()


def class_attention(net: encoder.Encoder, side: int) -> Tensor:
    return attention.class_attention(net, torch.rand(1, 3, side, side))


@torch.no_grad()
def whole_attention(net: encoder.Encoder, side: int) -> list[Tensor]:
    """The whole attention matrix of the last block, captured by a hook."""
    last, captured = net.net.blocks[-1].attn, []
    last.fused_attn = False
    handle = last.attn_drop.register_forward_hook(
        lambda module, inputs, output: captured.append(output)
    )
    net(torch.rand(1, 3, side, side))
    handle.remove()
    return captured


def confusion_seconds() -> float:
    random = np.random.default_rng(0)
    truth = random.integers(0, 12, (233, 360, 480)).astype(np.uint8)
    predicted = random.integers(0, 11, truth.shape).astype(np.uint8)
    start = time.perf_counter()
    counts = np.zeros((11, 11), np.int64)
    for pair in zip(truth, predicted, strict=True):
        counts += metrics.confusion(*pair, 11, 11)
    metrics.confusion_scores(counts)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
