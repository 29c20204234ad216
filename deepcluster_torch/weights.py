"""Weights for a trunk, from a file or from timm's hub: all of them, or a refusal."""

import difflib
import logging
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from common import UserError
from common.pytorch import hub

log = logging.getLogger(__name__)

# What wraps the names of a trunk's weights: DataParallel, our runs, and the habits of others.
PREFIXES = r"(module|model|net|backbone|encoder|encoder_q|trunk|body|feature_extractor)\."
OF_TIMM = {"vgg11": "vgg11_bn", "vgg16": "vgg16_bn", "resnet18": "resnet18", "resnet50": "resnet50"}


def load(trunk: nn.Module, path: Path) -> None:
    """Fills the trunk from a .safetensors or .pth file; raises UserError if one weight is missing.

    A .pth is read as tensors only, nothing in it is executed. Prefixes as of DataParallel and of
    our own runs are dropped, and weights of other parts (a classifier) are left out and logged.
    """
    _fill(trunk, read(path), str(path))
    log.info("weights of %s from %s", trunk.name, path)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name; raises UserError for anything else."""
    if not path.is_file():
        raise UserError(f"model.weights {path} is absent, expected a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, and was not loaded as it could run any program: "
            "save its state_dict alone"
        ) from None
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is no readable file of weights: {reason}") from None
    for key in ("state_dict", "model", "teacher"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not any(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{path} holds no weights by name, expected a state_dict")
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


def _fill(trunk: nn.Module, found: dict[str, Tensor], source: str) -> None:
    found = {_plain(name): value for name, value in found.items()}
    own = {_plain(name): value for name, value in trunk.state_dict().items()}
    # old files lack the number of batches that a batch norm has seen, which is not used
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    missing = sorted(needed - found.keys())
    if missing:
        raise UserError(
            f"{source} lacks {len(missing)} of the {len(needed)} weights of {trunk.name}, as "
            f"{missing[0]}; it has {', '.join(sorted(found)[:3])}, ..."
        )
    for name in sorted(needed):
        if found[name].shape != own[name].shape:
            raise UserError(
                f"{source} is of another {trunk.name}: {name} is {tuple(found[name].shape)}, "
                f"expected {tuple(own[name].shape)} for images of {trunk.shape[1]} pixels"
            )
        if not found[name].isfinite().all():
            raise UserError(f"{source}: {name} is NaN or infinite")
    with torch.no_grad():
        for name in needed:
            own[name].copy_(found[name])
    rest = sorted(found.keys() - own.keys())
    if rest:
        log.info("%s: left out what is not of the trunk: %s", source, ", ".join(rest[:8]))


def _plain(name: str) -> str:
    name = re.sub(rf"^{PREFIXES}", "", name)
    while (shorter := re.sub(rf"^{PREFIXES}", "", name)) != name:
        name = shorter
    return name.replace("features.module.", "features.", 1)


# ---- timm


class Timm(nn.Module):
    """A model of timm without its classifier."""

    def __init__(self, net: nn.Module, side: int, n_in: int):
        super().__init__()
        self.net = net
        self.stages = dict(net.named_children())
        self.statistics = (net.default_cfg["mean"], net.default_cfg["std"])
        with torch.no_grad():
            features = net.eval()(torch.zeros(1, n_in, side, side))
        self.n_features = features.shape[1]
        net.train()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def timm_model(name: str, side: int, n_in: int, pretrained: bool, others: tuple[str, ...]) -> Timm:
    """A model of timm for images of `side` pixels; raises UserError if there is no such thing."""
    timm = _import_timm(name, others)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*others, *timm.list_models()], 1)
        raise UserError(
            f"model.arch {name} is not known: "
            + (f"did you mean {near[0]}?" if near else f"{', '.join(others)}, or a name in timm")
        )
    net = _create(timm, name, pretrained, in_chans=n_in, num_classes=0, img_size=side)
    try:
        return Timm(net, side, n_in)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} cannot see images of {side} pixels: {reason}") from None


def load_from_timm(trunk: nn.Module) -> None:
    """Fills one of our own trunks with what timm has for it; raises UserError."""
    if trunk.name not in OF_TIMM:
        raise UserError(
            f"model.pretrained: there are no weights of {trunk.name} to fetch, expected one of "
            f"{', '.join(OF_TIMM)} or a name in timm; or give a file, model.weights"
        )
    timm = _import_timm(trunk.name, ())
    name = OF_TIMM[trunk.name]
    _fill(trunk, _create(timm, name, True).state_dict(), f"timm's {name}")


def _import_timm(name: str, others: tuple[str, ...]) -> object:
    try:
        import timm
    except ImportError:
        expected = f"expected one of {', '.join(others)}; " if others else ""
        raise UserError(
            f"model.arch {name}: {expected}more architectures, and weights to start from, come "
            "with timm, which is not installed: pip install timm"
        ) from None
    return timm


def _create(timm: object, name: str, pretrained: bool, **options: object) -> nn.Module:
    """timm.create_model, that answers soon where there is no network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if pretrained and not hub.is_reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True  # what is cached is found, anything else refused at once
    try:
        try:
            return timm.create_model(name, pretrained, **options)
        except TypeError:  # only transformers are told the size
            options.pop("img_size", None)
            return timm.create_model(name, pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the weights of {name} are not in the cache and cannot be fetched from "
            f"{constants.ENDPOINT}: give a file, model.weights, or run this once where there is a "
            f"network ({reason[:150]})"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = before
