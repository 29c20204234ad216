"""Vision transformers of timm as encoders of images of any size."""

import difflib
import itertools
import json
import logging
import re
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from common.pytorch.precision import compute_dtype

log = logging.getLogger("unsup_seg_torch.vit.encoder")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HEAD_WIDTH = 64  # of all published models of the papers


class Encoder(nn.Module):
    """Images (b, 3, h, w) in [0, 1] of any size -> tokens (b, p + n, d), p before n patches.

    name: of a timm model, None for custom sizes. Images are normalized and zero-padded on the right
    and at the bottom to whole patches; position embeddings are resized to the grid.
    """

    def __init__(self, net: VisionTransformer, name: str | None, statistics: tuple = IMAGENET):
        super().__init__()
        self.net = net
        self.name = name
        self.statistics = statistics
        for key, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def title(self) -> str:
        sizes = f"width {self.width}, depth {len(self.net.blocks)}, {self.n_heads} heads"
        return self.name or f"the transformer of {sizes}"

    @property
    def patch_size(self) -> int:
        return self.net.patch_embed.patch_size[0]

    @property
    def width(self) -> int:
        return self.net.embed_dim

    @property
    def n_heads(self) -> int:
        return self.net.blocks[0].attn.num_heads

    @property
    def n_prefix(self) -> int:
        """Tokens before the patches: class token, registers, distillation token."""
        return self.net.num_prefix_tokens

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image."""
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def pad(self, images: Tensor) -> Tensor:
        """Images in [0, 1], normalized and padded to whole patches."""
        h, w = images.shape[2:]
        rows, columns = self.grid(h, w)
        images = (images - self.mean) / self.std
        return F.pad(images, (0, columns * self.patch_size - w, 0, rows * self.patch_size - h))

    def forward(self, images: Tensor) -> Tensor:
        return self.net.forward_features(self.pad(images))

    def header(self) -> dict[str, Any]:
        """What weights alone do not tell."""
        values: dict[str, Any] = {
            "n_heads": self.n_heads,
            "grid": list(self.net.patch_embed.grid_size),
            "mean": list(self.statistics[0]),
            "std": list(self.statistics[1]),
        }
        epsilons = [norm.eps for norm in self.net.modules() if isinstance(norm, nn.LayerNorm)]
        if epsilons:
            values["norm_eps"] = epsilons[0]
        return values

    def describe(self) -> dict[str, str]:
        """The header as metadata of a file of weights.

        A single entry, since safetensors writes several in an order that changes from run to run.
        """
        return {"encoder": json.dumps(self.header())}

    def adopt(self, header: dict[str, Any]) -> None:
        """Takes the normalization of images and the epsilon of layer norms from a header."""
        if {"mean", "std"} <= header.keys():
            self.statistics = (tuple(header["mean"]), tuple(header["std"]))
            for buffer, values in zip((self.mean, self.std), self.statistics, strict=True):
                buffer.copy_(torch.tensor(values).view(3, 1, 1))
        if "norm_eps" in header:
            for module in self.net.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = header["norm_eps"]


def build(
    name: str | None,
    size: tuple[int, int],
    *,
    patch_size: int = 16,
    width: int = 192,
    depth: int = 12,
    n_heads: int | None = None,
    drop_path: float = 0.0,
    stem: bool = False,
) -> Encoder:
    """A transformer of timm by name, or one of these sizes; weights are random.

    size: (h, w) in pixels, of the position embeddings. n_heads None: width / 64, as in published
    models. stem: small convolutions instead of one of the patch's size. Raises UserError for an
    unknown name.
    """
    if name is None:
        heads = n_heads or max(width // HEAD_WIDTH, 1)
        if width % heads:
            raise UserError(f"model.width is {width}: expected a multiple of its {heads} heads")
        rows, columns = (-(-side // patch_size) * patch_size for side in size)
        net = VisionTransformer(
            img_size=(rows, columns),
            patch_size=patch_size,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            drop_path_rate=drop_path,
            dynamic_img_size=True,
        )
        if stem:
            net.patch_embed.proj = convolutional_stem(patch_size, width)
        return Encoder(net, None)
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(
            name, timm.list_models("*vit*") + timm.list_pretrained(), 1
        )
        raise UserError(
            f"model.backbone {name} is not known: "
            + (f"did you mean {near[0]}?" if near else "expected the name of a timm model")
        )
    patch = re.search(r"patch(\d+)", name)
    sides = [-(-side // int(patch[1])) * int(patch[1]) for side in size] if patch else size
    options = {"num_classes": 0, "img_size": tuple(sides), "dynamic_img_size": True}
    try:
        net = timm.create_model(name, drop_path_rate=drop_path, **options)
    except TypeError:  # other models do not have these options
        net = None
    if not isinstance(net, VisionTransformer):
        raise UserError(
            f"model.backbone {name} is not a plain vision transformer of timm: expected a model "
            "like vit_tiny_patch16_384, deit_small_patch16_224 or vit_small_patch8_224.dino"
        )
    return Encoder(net, name, (net.default_cfg["mean"], net.default_cfg["std"]))


def convolutional_stem(patch_size: int, width: int) -> nn.Sequential:
    """(b, 3, h, w) -> (b, width, h / patch_size, w / patch_size), after Xiao et al. 2021.

    Up to three convolutions of stride 2, then one without overlap for the remaining factor.
    """
    n_halvings = min((patch_size & -patch_size).bit_length() - 1, 3)
    widths = [3, *(max(width >> (n_halvings - 1 - i), 8) for i in range(n_halvings))]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.GroupNorm(1, b), nn.GELU()]
        layers += [nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.GroupNorm(1, b), nn.GELU()]
    rest = patch_size >> n_halvings
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], width, rest, rest))


def unfuse_attention(net: nn.Module, precision: str, device: torch.device) -> None:
    """Computes attention as matrix products if that is faster to train.

    On a CPU in bfloat16 the gradient of PyTorch's fused attention takes longer than all the rest.
    """
    if device.type == "cpu" and compute_dtype(precision, device) == torch.bfloat16:
        for module in net.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
