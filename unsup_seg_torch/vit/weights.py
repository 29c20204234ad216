"""Pretrained weights of the encoders: from a file, from the hub's cache, or from the hub.

Weights of another depth, number of heads or normalization are refused, even if their shapes fit.
"""

import logging
import re
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from common import UserError
from common.pytorch import hub, weights
from unsup_seg_torch.vit.encoder import HEAD_WIDTH, IMAGENET, Encoder

log = logging.getLogger("unsup_seg_torch.vit.weights")

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
# What reading values of a file in an unexpected form raises.
_INVALID = (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)


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


class _SafeLoaderWithTuples(yaml.SafeLoader):
    """SafeLoader, which creates no Python objects, and tuples as lists: the image size is one."""


_SafeLoaderWithTuples.add_constructor(
    "tag:yaml.org,2002:python/tuple", yaml.SafeLoader.construct_sequence
)


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
