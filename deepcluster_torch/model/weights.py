"""Pretrained weights for a trunk, from a file or from timm: all of them, or an error."""

import difflib
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from common import UserError
from common.pytorch import hub
from common.pytorch import weights as weights_files

log = logging.getLogger(__name__)

# Prefixes of weight names: of DataParallel, of our runs, and of other libraries.
PREFIXES = r"(module|model|net|backbone|encoder|encoder_q|trunk|body|feature_extractor)\."
# Beginnings of names of other parts, which a file may have: classifiers, the authors' Sobel filters
# and top layer, heads of self-supervised methods, the second encoder and the queue of MoCo.
OTHER_PARTS = (
    r"(fc|classifier|pre_logits|last_linear|top_layer|sobel|head|projection|projection_head"
    r"|prototypes|projector|predictor|encoder_k|queue|queue_ptr)(\.|$)"
)
WRAPPERS = ("state_dict", "model", "teacher")  # keys of a .pth file that hold the weights
TIMM_NAMES = {
    "vgg11": "vgg11_bn",
    "vgg16": "vgg16_bn",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
}


def load(trunk: nn.Module, path: Path) -> None:
    """Loads the trunk from a .safetensors or .pth file; raises UserError unless all of it fits.

    Nothing in a .pth file is executed. Prefixes as of DataParallel and of our own runs are dropped;
    weights of other parts (a classifier) are ignored and logged, any others are refused.
    """
    content, _ = weights_files.read(path)
    _copy(trunk, weights_files.state_dict(content, path, WRAPPERS), path)
    log.info("weights of %s from %s", trunk.name, path)


def _copy(trunk: nn.Module, saved: dict[str, Tensor], source: Path | str) -> None:
    saved = weights_files.strip_prefixes(_without_modules(saved), PREFIXES, source)
    own = weights_files.strip_prefixes(trunk.state_dict(), PREFIXES, source)
    title = f"{trunk.name} for images of {trunk.shape[1]} pixels"
    ignored = weights_files.check(saved, own, source, title, OTHER_PARTS)
    with torch.no_grad():
        for name in own.keys() & saved.keys():
            own[name].copy_(saved[name])
    if ignored:
        log.info(
            "%s: ignored weights that are not of the trunk: %s", source, ", ".join(ignored[:8])
        )


def _without_modules(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors wrap only the convolutions in DataParallel: features.module.0.weight."""
    return {name.replace("features.module.", "features.", 1): saved[name] for name in saved}


# ---- timm


class TimmModel(nn.Module):
    """A timm model without its classifier."""

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


def timm_model(
    name: str, side: int, n_in: int, pretrained: bool, others: tuple[str, ...]
) -> TimmModel:
    """A timm model for images of `side` pixels; raises UserError if timm has no such model.

    others: the names of our own trunks, for the message.
    """
    timm = _import_timm(name, others)
    if not timm.is_model(name):
        matches = difflib.get_close_matches(name, [*others, *timm.list_models()], 1)
        names = f"expected {', '.join(others)}, or a timm model"
        raise UserError(
            f"unknown model.arch {name}: {f'did you mean {matches[0]}?' if matches else names}"
        )
    net = _create(timm, name, pretrained, in_chans=n_in, num_classes=0, img_size=side)
    try:
        return TimmModel(net, side, n_in)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} does not work with images of {side} pixels: {reason}") from None


def load_from_timm(trunk: nn.Module) -> None:
    """Loads timm's weights into one of our own trunks; raises UserError."""
    if trunk.name not in TIMM_NAMES:
        raise UserError(
            f"model.pretrained: timm has no weights of {trunk.name}: expected one of "
            f"{', '.join(TIMM_NAMES)} or a timm model; or set model.weights to a file"
        )
    timm = _import_timm(trunk.name, ())
    name = TIMM_NAMES[trunk.name]
    _copy(trunk, _create(timm, name, True).state_dict(), f"timm's {name}")


def _import_timm(name: str, others: tuple[str, ...]) -> object:
    try:
        import timm
    except ImportError:
        expected = f"expected one of {', '.join(others)}; " if others else ""
        raise UserError(
            f"model.arch {name}: {expected}more architectures and pretrained weights need timm, "
            "which is not installed: pip install timm"
        ) from None
    return timm


def _create(timm: object, name: str, pretrained: bool, **options: object) -> nn.Module:
    """timm.create_model, which fails at once instead of after minutes without a network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if pretrained and not hub.is_reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True  # only the cache is searched
    try:
        try:
            return timm.create_model(name, pretrained, **options)
        except TypeError:  # only transformers take the image size
            options.pop("img_size", None)
            return timm.create_model(name, pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the weights of {name} are not in the cache and cannot be downloaded from "
            f"{constants.ENDPOINT}: set model.weights to a file, or run this once with a network "
            f"connection ({reason[:150]})"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = before
