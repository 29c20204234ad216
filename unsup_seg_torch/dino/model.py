"""DINO's student and teacher: the same transformer and head, the second a mean of the first."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from unsup_seg_torch import encoders
from unsup_seg_torch.dino import config
from unsup_seg_torch.encoders import Encoder

PRETRAINED = "vit_small_patch16_224.dino"  # the backbone where only `pretrained` is asked for


class Head(nn.Module):
    """Features (b, d) -> outputs (b, k): three layers, length 1, a weight-normed one (appendix C).

    The last layer's rows have length 1 throughout with norm_last_layer, else a learned one.
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
    """An encoder's class token, and the head's outputs (v, b, k) for it."""

    def __init__(self, encoder: Encoder, head: Head):
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, views: list[Tensor]) -> Tensor:
        return self.head(self.features(views))

    def features(self, views: list[Tensor]) -> Tensor:
        """Views of several sizes, each (b, 3, s, s) -> (v, b, d); equal sizes go at once."""
        sizes = dict.fromkeys(view.shape for view in views)
        groups = [[view for view in views if view.shape == size] for size in sizes]
        found = [self.encoder(torch.cat(group))[:, 0] for group in groups]
        return torch.cat(found).unflatten(0, (len(views), -1))


class DINO(nn.Module):
    """Student, teacher and centre; the teacher begins as the student and has no gradient."""

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
            if hasattr(module, "drop_prob"):  # the teacher leaves nothing out
                module.drop_prob = 0.0
        self.register_buffer("centre", torch.zeros(n_outputs))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Moves the teacher towards the student."""
        pairs = [list(net.parameters()) for net in (self.teacher, self.student)]
        torch._foreach_lerp_(*pairs, 1 - momentum)

    def forward(self, images: Tensor) -> Tensor:
        """Features of the teacher: (b, 3, h, w) in [0, 1] -> (b, d), the class token's."""
        return self.teacher.encoder(images)[:, 0]


def build(cfg: config.Model, size: int) -> DINO:
    """With random weights, for crops of so many pixels; raises UserError for no such backbone."""
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


def start_weights(cfg: config.Model, net: DINO) -> None:
    """Fills both encoders with those that the config names; raises UserError where it cannot."""
    if cfg.weights:
        encoders.load(net.student.encoder, Path(cfg.weights))
    elif cfg.pretrained:
        encoders.fetch(net.student.encoder)
    net.follow(0)
