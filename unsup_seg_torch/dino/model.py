"""DINO's student and teacher: one architecture, the teacher a moving average of the student."""

import argparse
import copy
import itertools
import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from common import UserError
from common.pytorch import checkpoint, weights
from unsup_seg_torch.dino import config
from unsup_seg_torch.vit import encoder as encoders
from unsup_seg_torch.vit import weights as vit_weights
from unsup_seg_torch.vit.encoder import Encoder

log = logging.getLogger("unsup_seg_torch.dino.model")

PARTS = ("student", "teacher")
PRETRAINED = "vit_small_patch16_224.dino"  # the default backbone if model.pretrained is true


class Head(nn.Module):
    """Features (b, d) -> outputs (b, k): MLP, L2 norm, weight-normalized layer (appendix C).

    With norm_last_layer the rows of the last layer have length 1, else a learned length.
    """

    def __init__(
        self,
        width: int,
        n_outputs: int,
        hidden: int = 2048,
        bottleneck: int = 256,
        norm_last_layer: bool = True,
    ):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.layers[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.last = parametrizations.weight_norm(nn.Linear(bottleneck, n_outputs, bias=False))
        length = self.last.parametrizations.weight.original0
        nn.init.ones_(length)
        length.requires_grad_(not norm_last_layer)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(F.normalize(self.layers(features), dim=-1))


class Network(nn.Module):
    """An encoder, and a head on its class token."""

    def __init__(self, encoder: Encoder, head: Head):
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, views: list[Tensor]) -> Tensor:
        """Views of several sizes, each (b, 3, s, s) -> outputs (v, b, k)"""
        return self.head(self.features(views))

    def features(self, views: list[Tensor]) -> Tensor:
        """Views of several sizes, each (b, 3, s, s) -> class tokens (v, b, d)"""
        sizes = dict.fromkeys(view.shape for view in views)
        groups = [[view for view in views if view.shape == size] for size in sizes]
        tokens = [self.encoder(torch.cat(group))[:, 0] for group in groups]
        return torch.cat(tokens).unflatten(0, (len(views), -1))


class DINO(nn.Module):
    """Student, teacher and center; the teacher starts as a copy of the student."""

    def __init__(
        self,
        encoder: Encoder,
        n_outputs: int = 65536,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        norm_last_layer: bool = True,
    ):
        super().__init__()
        head = Head(encoder.width, n_outputs, hidden, bottleneck, norm_last_layer)
        self.student = Network(encoder, head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        for module in self.teacher.modules():
            if hasattr(module, "drop_prob"):  # no drop path in the teacher
                module.drop_prob = 0.0
        self.register_buffer("center", torch.zeros(n_outputs))

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Exponential moving average of the student's weights."""
        pairs = [list(net.parameters()) for net in (self.teacher, self.student)]
        torch._foreach_lerp_(*pairs, 1 - momentum)

    def forward(self, images: Tensor) -> Tensor:
        """The teacher's class token: (b, 3, h, w) in [0, 1] -> (b, d)"""
        return self.teacher.encoder(images)[:, 0]


def build(cfg: config.Model, size: int) -> DINO:
    """With random weights, for crops of `size` pixels; raises UserError for an unknown backbone."""
    encoder = encoders.build(
        cfg.backbone or (PRETRAINED if cfg.pretrained else None),
        (size, size),
        patch_size=cfg.patch_size,
        width=cfg.width,
        depth=cfg.depth,
        n_heads=cfg.n_heads,
        drop_path=cfg.drop_path,
        stem=cfg.stem,
    )
    return DINO(
        encoder,
        cfg.n_outputs,
        hidden=cfg.hidden,
        bottleneck=cfg.bottleneck,
        norm_last_layer=cfg.norm_last_layer,
    )


# ---- weights

# The names of the head's layers in the authors' code, with either version of PyTorch's weight norm.
LAST_LAYER = "last.parametrizations.weight.original"
AUTHORS_HEAD = {
    "mlp.": "layers.",
    "last_layer.weight_g": f"{LAST_LAYER}0",
    "last_layer.weight_v": f"{LAST_LAYER}1",
    "last_layer.parametrizations.weight.original": LAST_LAYER,
}


def load_start_weights(cfg: config.Model, net: DINO) -> None:
    """Loads the weights that the config names, if any: all that the file has, or UserError.

    A file of student and teacher with heads, of our runs or of the authors, gives both networks and
    the center; any other gives both encoders the same weights, of its teacher if there is one.
    """
    if cfg.weights:
        path = Path(cfg.weights)
        saved, header = vit_weights.read(path)
        has_both = all(any(k.startswith(f"{part}.") for k in saved) for part in PARTS)
        if has_both and any(_is_head(k, part) for k in saved for part in PARTS):
            _load_whole(net, saved, header, path)
            return
        vit_weights.load(net.student.encoder, path)
        log.info("%s: encoders only, heads have random weights", path)
    elif cfg.pretrained:
        vit_weights.load_pretrained(net.student.encoder)
    net.update_teacher(0)
    net.teacher.encoder.adopt(net.student.encoder.header())


def _is_head(name: str, part: str) -> bool:
    return re.match(rf"{part}\.(module\.)?head\.", name) is not None


def _load_whole(net: DINO, saved: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
    """Student, teacher and center; raises UserError, and changes nothing, unless all fit."""
    bodies, heads = {}, {}
    for part in PARTS:
        tensors = {k: v for k, v in saved.items() if k.startswith(f"{part}.")}
        head = {k: v for k, v in tensors.items() if _is_head(k, part)}
        bodies[part] = {k: v for k, v in tensors.items() if k not in head}
        network = net.get_submodule(part)
        vit_weights.fit(network.encoder, bodies[part], header, path)
        heads[part] = fit_head(network.head, head, path)
    center = {"center": saved["center"]} if "center" in saved else {}
    weights.check(center, {"center": net.center}, path, "the center of model.n_outputs")
    known = r"(student|teacher)\.|center$"
    if others := [name for name in saved if not re.match(known, name)]:
        raise UserError(f"{path} is of another model: it also has {others[0]}")
    lengths = heads["student"][f"{LAST_LAYER}0"]
    if (
        not net.student.head.last.parametrizations.weight.original0.requires_grad
        and not (lengths == 1).all()
    ):
        raise UserError(
            f"{path}: the rows of the last layer are not of length 1: set model.norm_last_layer "
            "false"
        )
    for part in PARTS:
        network = net.get_submodule(part)
        vit_weights.load_tensors(network.encoder, bodies[part], header, path)
        network.head.load_state_dict(heads[part])
    net.center.copy_(center["center"])
    log.info("%s: student, teacher, both heads and the center loaded", path)


def fit_head(head: Head, saved: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of a head in a file as those of `head`; raises UserError unless all fit."""
    tensors = {}
    for name, value in saved.items():
        name = name.partition("head.")[2]
        for theirs, ours in AUTHORS_HEAD.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
                break
        tensors[name] = value
    title = "the head of model.hidden, model.bottleneck and model.n_outputs"
    weights.check(tensors, head.state_dict(), path, title)
    return tensors


def load_training(optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Loads AdamW's moments from a checkpoint of the authors; returns the number of its epochs.

    Their groups and the order of parameters are ours. Raises UserError for other files.
    """
    content, _ = weights.read(path)
    content = content if isinstance(content, dict) else {}
    epoch, saved, args = (content.get(key) for key in ("epoch", "optimizer", "args"))
    try:
        groups = [list(group["params"]) for group in saved["param_groups"]]
        moments = {
            f"{position}.{name}": torch.as_tensor(value, dtype=torch.float32)
            for position, key in enumerate(itertools.chain(*groups))
            for name, value in saved["state"].get(key, {}).items()
            if value is not None
        }
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError):
        moments = {}
    if not moments or type(epoch) is not int or epoch < 0:
        raise UserError(
            f"model.continue_training: {path} has no epoch and optimizer: expected a whole "
            "checkpoint of the authors; to continue a run of ours use train.py --resume"
        )
    sizes, own = ([len(group) for group in each] for each in (groups, _groups(optimizer)))
    names = {name.partition(".")[2] for name in moments}
    if sizes != own or names != {"step", "exp_avg", "exp_avg_sq"}:
        raise UserError(
            f"model.continue_training: {path} has an optimizer of {sizes} parameters with "
            f"{', '.join(sorted(names))}: expected AdamW with {own}; see model.norm_last_layer"
        )
    checkpoint.load_optimizer(optimizer, moments, path)
    if isinstance(args, argparse.Namespace):
        log.info("%s was trained with %s", path, vars(args))
    return epoch


def _groups(optimizer: torch.optim.Optimizer) -> list[list[nn.Parameter]]:
    return [group["params"] for group in optimizer.param_groups]
