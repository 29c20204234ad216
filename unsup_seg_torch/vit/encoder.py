"""Vision transformers of timm as encoders of images of any size, and their pretrained weights.

Weights come from a file, from the hub's cache, or from the hub. Weights of another depth, number of
heads or normalization are refused, even if their shapes fit.
"""

import difflib
import itertools
import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from common.pytorch import hub, weights
from common.pytorch.precision import compute_dtype

log = logging.getLogger("unsup_seg_torch.vit.encoder")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HEAD_WIDTH = 64  # of all published models of the papers
# Prefixes of a network's weights, and of its encoder's: of DataParallel, our runs, and other code.
NETWORKS = r"(module|model|net|average|teacher|student)\."
ENCODERS = rf"{NETWORKS}|(backbone|encoder)\."
PREFERRED = ("average.", "teacher.", "student.")  # of several networks in a file, the one to use
# Beginnings of names of other parts that a file may have: classifiers, DINO's head, decoders.
OTHER_PARTS = r"(head|head_dist|pre_logits|decoder|center)(\.|$)"
# Of the encoders of Segmenter's authors, which use PyTorch's default instead of timm's 1e-6; and
# the names of normalizations in their variant.yml.
SEGMENTER_NORM_EPS = 1e-5
SEGMENTER_NORMALIZATIONS = {"vit": ((0.5,) * 3, (0.5,) * 3), "deit": IMAGENET}


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


# ---- weights


def load(encoder: Encoder, path: Path) -> None:
    """Loads an encoder from a .safetensors or .pth file; raises UserError unless all of it fits.

    Of a checkpoint with several networks the teacher, or the average, is used; other weights, as of
    a classifier, are ignored and logged.
    """
    saved, header = read(path)
    ignored = load_tensors(encoder, select(saved, path), header, path)
    if ignored:
        log.info("%s: ignored: %s", path, ", ".join(ignored[:6]) + ", ..." * (len(ignored) > 6))


def load_tensors(
    encoder: Encoder, saved: dict[str, Tensor], header: dict[str, Any], path: Path
) -> list[str]:
    """Loads an encoder from `select` and the header of `read`; returns the names it ignored.

    Raises UserError, and changes nothing, unless all of it fits.
    """
    tensors, ignored = fit(encoder, saved, header, path)
    encoder.net.load_state_dict(tensors)
    encoder.adopt(header)
    is_resized = any(
        name.endswith("pos_embed") and value.shape != tensors["pos_embed"].shape
        for name, value in saved.items()
    )
    log.info(
        "weights of %s: all %d loaded from %s%s",
        encoder.title,
        len(tensors),
        path,
        "; position embeddings resized to {}x{}".format(*encoder.net.patch_embed.grid_size)
        if is_resized
        else "",
    )
    return ignored


def fit(
    encoder: Encoder, saved: dict[str, Tensor], header: dict[str, Any], path: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file as those of the encoder, and the names of other parts.

    Raises UserError for a missing or unexpected name, and for another depth, width, number of
    heads, patch size or normalization.
    """
    saved = weights.strip_prefixes(saved, ENCODERS, path)
    _check(encoder, saved, header, path)
    net = encoder.net
    bilinear = {"interpolation": "bilinear", "antialias": False}  # as Segmenter's authors resize
    try:
        # a grid that is not square cannot be guessed
        if "pos_embed" in saved and ("grid" in header or "resize" in header):
            saved["pos_embed"] = resample_abs_pos_embed(
                saved["pos_embed"],
                list(net.patch_embed.grid_size),
                header.get("grid"),
                num_prefix_tokens=0 if net.no_embed_class else net.num_prefix_tokens,
                **(bilinear if header.get("resize") == "bilinear" else {}),
            )
        saved = checkpoint_filter_fn(saved, net)
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} does not fit {encoder.title}: {reason}") from None
    own = net.state_dict()
    ignored = weights.check(saved, own, path, encoder.title, OTHER_PARTS)
    return {name: saved[name] for name in own}, ignored


def load_pretrained(encoder: Encoder) -> None:
    """Loads timm's weights for the encoder's name, from the cache or the hub; raises UserError."""
    if encoder.name is None:
        raise UserError(
            f"model.pretrained: no pretrained weights exist for {encoder.title}: pass a file as "
            "model.weights, or a model.backbone of timm"
        )
    load(encoder, hub_file(encoder.name))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a .safetensors or .pth file by name, and `Encoder.header` of them.

    Of a checkpoint of DINO's authors the names begin with student. and teacher., and there is the
    center; of one of Segmenter's authors the header is that of the variant.yml beside it. Raises
    UserError for a file that is neither these nor weights by name.
    """
    content, metadata = weights.read(path)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, dict):
        networks = {key: content.get(key) for key in ("student", "teacher")}
        if any(isinstance(network, dict) for network in networks.values()):
            loss = content.get("dino_loss")
            content = {
                f"{key}.{name}": value
                for key, network in networks.items()
                if isinstance(network, dict)
                for name, value in network.items()
            }
            if isinstance(loss, dict) and isinstance(loss.get("center"), Tensor):
                content["center"] = loss["center"].flatten()
    saved, header = (
        weights.state_dict(content, path, ()),
        weights.metadata_json(metadata, "encoder"),
    )
    if not header and any(name.startswith(("teacher.", "student.")) for name in saved):
        header = dict(zip(("mean", "std"), IMAGENET, strict=True))
    prefixes = {".".join(name.split(".")[:2]) for name in saved}
    if {"encoder.blocks", "encoder.patch_embed"} <= prefixes and _has_decoder(saved):
        header = _segmenter_header(path)
    return saved, header


def adopt_header(networks: nn.Module, path: Path) -> None:
    """Gives all encoders in a module the header of a run's .safetensors file, see `adopt`."""
    with safe_open(path, "pt") as file:
        header = weights.metadata_json(file.metadata() or {}, "encoder")
    for module in networks.modules():
        if isinstance(module, Encoder):
            module.adopt(header)


def select(saved: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Of the networks in a file the one to use: names from encoder., decoder., ... on."""
    for prefix in PREFERRED:
        if any(name.startswith(prefix) for name in saved):
            saved = {name: value for name, value in saved.items() if name.startswith(prefix)}
            break
    return weights.strip_prefixes(saved, NETWORKS, path)


def _has_decoder(saved: dict[str, Tensor]) -> bool:
    return any(name.startswith("decoder.") for name in saved)


def _segmenter_header(path: Path) -> dict[str, Any]:
    """The header of a checkpoint of Segmenter's authors, from its variant.yml."""
    header: dict[str, Any] = {"norm_eps": SEGMENTER_NORM_EPS, "resize": "bilinear"}
    file = path.with_name("variant.yml")
    if not file.is_file():
        log.info("no %s: assuming the usual heads, the config's normalization", file)
        return header
    try:
        variant = yaml.load(file.read_text("utf-8-sig"), Loader=_SafeLoaderWithTuples)
        net = variant["net_kwargs"]
        mean, std = SEGMENTER_NORMALIZATIONS[variant["dataset_kwargs"]["normalization"]]
        grid = [int(side) // int(net["patch_size"]) for side in net["image_size"]]
        return header | {"n_heads": int(net["n_heads"]), "grid": grid, "mean": mean, "std": std}
    except (yaml.YAMLError, *_INVALID) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file} is not a variant.yml of Segmenter's authors: {reason}") from None


# What reading values of a file in an unexpected form raises.
_INVALID = (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)


class _SafeLoaderWithTuples(yaml.SafeLoader):
    """SafeLoader, which creates no Python objects, and tuples as lists: the image size is one."""


_SafeLoaderWithTuples.add_constructor(
    "tag:yaml.org,2002:python/tuple", yaml.SafeLoader.construct_sequence
)


def _check(encoder: Encoder, saved: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
    """Raises UserError for weights whose shapes would fit but whose features would differ."""
    numbers = [re.match(r"blocks\.(\d+)\.", name) for name in saved]
    depth = 1 + max((int(number[1]) for number in numbers if number), default=-1)
    if depth and depth != len(encoder.net.blocks):
        raise UserError(
            f"{path} has {depth} blocks, {encoder.title} has {len(encoder.net.blocks)}: "
            "expected the same depth"
        )
    patches = saved.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4 and patches.shape[3] != encoder.patch_size:
        raise UserError(
            f"{path} has patches of {patches.shape[3]} pixels, {encoder.title} of "
            f"{encoder.patch_size}: expected the same size"
        )
    usual = encoder.n_heads if encoder.name else max(encoder.width // HEAD_WIDTH, 1)
    n_heads = header.get("n_heads", usual)  # a file without the entry has the usual number
    if n_heads != encoder.n_heads:
        raise UserError(
            f"{path} has {n_heads} heads, the config's model.n_heads makes {encoder.n_heads}: "
            "shapes match, but features would differ"
        )
    # an encoder of custom sizes takes the file's normalization, see `Encoder.adopt`
    statistics = tuple(tuple(header.get(key, ())) for key in ("mean", "std"))
    if encoder.name and all(statistics) and statistics != tuple(map(tuple, encoder.statistics)):
        raise UserError(
            f"{path} was trained on images normalized by the mean {statistics[0]}, "
            f"{encoder.title} expects {tuple(encoder.statistics[0])}: choose a model.backbone with "
            "the same normalization"
        )


def hub_file(name: str) -> Path:
    """timm's file of weights of a model, from the cache or the hub; raises UserError."""
    import timm
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    cfg = timm.get_pretrained_cfg(name)
    repository = cfg.hf_hub_id if cfg else None
    if not repository:
        raise UserError(
            f"model.pretrained: timm has no weights of {name}: pass a file as model.weights"
        )
    file = "model.safetensors"
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    reason = "no answer"
    if not constants.HF_HUB_OFFLINE and hub.is_reachable(constants.ENDPOINT):
        log.info("downloading %s of %s from %s", file, repository, constants.ENDPOINT)
        try:
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # the hub raises its own exceptions, and those of the network
            reason = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
    raise UserError(
        f"the weights of {name} ({repository}) are not in the cache {constants.HF_HUB_CACHE} and "
        f"cannot be downloaded ({reason}): pass a file as model.weights, copy the cache from "
        "another machine, or run this once with a network connection"
    )
