"""DINO's student and teacher: one architecture, the teacher a moving average of the student."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from unsup_seg_torch.dino import config
from unsup_seg_torch.vit import encoder as encoders
from unsup_seg_torch.vit.encoder import Encoder

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


def load_start_weights(cfg: config.Model, net: DINO) -> None:
    """Loads the weights that the config names into both encoders; raises UserError."""
    if cfg.weights:
        encoders.load(net.student.encoder, Path(cfg.weights))
    elif cfg.pretrained:
        encoders.load_pretrained(net.student.encoder)
    net.update_teacher(0)
