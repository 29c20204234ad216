"""Checkpoints as DINO's authors write them: names, order of parameters, optimizer, command line."""

import argparse

import numpy as np
import torch

WIDTH, DEPTH, PATCH, SIDE, HIDDEN, BOTTLENECK, N_OUTPUTS = 64, 2, 4, 16, 32, 16, 24
MODEL = {"patch_size": PATCH, "width": WIDTH, "depth": DEPTH, "hidden": HIDDEN, "drop_path": 0.0}
MODEL |= {"bottleneck": BOTTLENECK, "n_outputs": N_OUTPUTS}  # of our config


def shapes():
    """Names and shapes of a network's parameters, in the order of named_parameters()."""
    yield "backbone.cls_token", (1, 1, WIDTH)
    yield "backbone.pos_embed", (1, 1 + (SIDE // PATCH) ** 2, WIDTH)
    yield "backbone.patch_embed.proj.weight", (WIDTH, 3, PATCH, PATCH)
    yield "backbone.patch_embed.proj.bias", (WIDTH,)
    for i in range(DEPTH):
        for name, shape in (
            ("norm1", (WIDTH,)),
            ("attn.qkv", (3 * WIDTH, WIDTH)),
            ("attn.proj", (WIDTH, WIDTH)),
            ("norm2", (WIDTH,)),
            ("mlp.fc1", (4 * WIDTH, WIDTH)),
            ("mlp.fc2", (WIDTH, 4 * WIDTH)),
        ):
            yield f"backbone.blocks.{i}.{name}.weight", shape
            yield f"backbone.blocks.{i}.{name}.bias", shape[:1]
    yield from (("backbone.norm.weight", (WIDTH,)), ("backbone.norm.bias", (WIDTH,)))
    for i, shape in ((0, (HIDDEN, WIDTH)), (2, (HIDDEN, HIDDEN)), (4, (BOTTLENECK, HIDDEN))):
        yield f"head.mlp.{i}.weight", shape
        yield f"head.mlp.{i}.bias", shape[:1]
    yield "head.last_layer.weight_g", (N_OUTPUTS, 1)
    yield "head.last_layer.weight_v", (N_OUTPUTS, BOTTLENECK)


def parameters(seed, norm_last_layer):
    random = torch.Generator().manual_seed(seed)
    values = {name: 0.2 * torch.randn(shape, generator=random) for name, shape in shapes()}
    if norm_last_layer:
        values["head.last_layer.weight_g"] = torch.ones(N_OUTPUTS, 1)
    frozen = {"head.last_layer.weight_g"} if norm_last_layer else set()
    return {k: torch.nn.Parameter(v, requires_grad=k not in frozen) for k, v in values.items()}


def optimizer_of(student):
    """AdamW with their two groups, and rates that are NumPy scalars, as from their schedules."""
    learned = {name: p for name, p in student.items() if p.requires_grad}
    no_decay = {name for name, p in learned.items() if name.endswith(".bias") or p.ndim == 1}
    groups = [{"params": [p for name, p in learned.items() if name not in no_decay]}]
    groups += [{"params": [learned[name] for name in learned if name in no_decay]}]
    groups[1]["weight_decay"] = 0.0
    optimizer = torch.optim.AdamW(groups)
    for group in optimizer.param_groups:
        group["lr"] = np.float64(1e-3)
    optimizer.param_groups[0]["weight_decay"] = np.float64(0.1)
    return optimizer


def gradients(student, seed):
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=random) for name, p in student.items()}


def step(student, optimizer, seed):
    """One update with random gradients."""
    for name, gradient in gradients(student, seed).items():
        student[name].grad = gradient if student[name].requires_grad else None
    optimizer.step()


def content(norm_last_layer=True, n_steps=3, epoch=2):
    """What checkpoint.pth holds, the student's parameters, and its optimizer."""
    student, teacher = (parameters(seed, norm_last_layer) for seed in (0, 1))
    optimizer = optimizer_of(student)
    for i in range(n_steps):
        step(student, optimizer, i)
    args = argparse.Namespace(arch="vit_small", patch_size=PATCH, out_dim=N_OUTPUTS)
    args.global_crops_scale, args.momentum_teacher = (0.4, 1.0), 0.996
    saved = {
        "student": {f"module.{name}": p.detach().clone() for name, p in student.items()},
        "teacher": {name: p.detach().clone() for name, p in teacher.items()},
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "args": args,
        "dino_loss": {"center": torch.arange(float(N_OUTPUTS))[None]},
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
    }
    return saved, student, optimizer
