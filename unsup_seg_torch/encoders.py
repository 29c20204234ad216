"""Vision transformers of timm as encoders of images of any size, and where their weights are from.

Weights come from a file, from the cache of timm's hub, or from the hub. What was loaded is
reported, and what is of another depth, number of heads or normalisation is refused.
"""

import difflib
import itertools
import json
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from common.pytorch import hub

log = logging.getLogger("unsup_seg_torch.encoders")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HEAD_WIDTH = 64  # of every transformer that the papers have published
# What wraps the names of an encoder's weights: DataParallel, our runs, and the habits of others.
WRAPPED = r"(module|model|net|backbone|encoder|average|teacher)\."
FIRST = ("average.", "teacher.")  # of several encoders in a file, the one that is meant for use


class Encoder(nn.Module):
    """Images (b, 3, h, w) in [0, 1] of any size -> tokens (b, p + n, d), p before the n patches.

    name: timm's, None for one of our own sizes. Zeros are put to the right and below, after
    normalisation, up to the next whole patch; position embeddings are resized to the grid.
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
        """Tokens before the patches: the class token, registers, a distillation token."""
        return self.net.num_prefix_tokens

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches of an image, downwards and across."""
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def pad(self, images: Tensor) -> Tensor:
        """What the transformer sees of images in [0, 1]: normalised, of whole patches."""
        h, w = images.shape[2:]
        rows, columns = self.grid(h, w)
        images = (images - self.mean) / self.std
        return F.pad(images, (0, columns * self.patch_size - w, 0, rows * self.patch_size - h))

    def forward(self, images: Tensor) -> Tensor:
        return self.net.forward_features(self.pad(images))

    def describe(self) -> dict[str, str]:
        """What weights alone do not say, for the header of a file of them.

        One entry, since safetensors writes several in an order that changes from run to run.
        """
        values = {
            "n_heads": self.n_heads,
            "grid": list(self.net.patch_embed.grid_size),
            "mean": list(self.statistics[0]),
            "std": list(self.statistics[1]),
        }
        return {"encoder": json.dumps(values)}


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
    """A transformer of timm by name, or, without one, one of these sizes; weights are random.

    size: (h, w), the pixels for which position embeddings are kept. n_heads None: width / 64, as
    published ones have. stem: patches are seen by small convolutions in the place of one as large
    as they are. Raises UserError for a name that timm does not have.
    """
    if name is None:
        heads = n_heads or max(width // HEAD_WIDTH, 1)
        if width % heads:
            raise UserError(f"model.width is {width}, which {heads} heads do not divide")
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
            net.patch_embed.proj = convolutions(patch_size, width)
        return Encoder(net, None)
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(
            name, timm.list_models("*vit*") + timm.list_pretrained(), 1
        )
        raise UserError(
            f"model.backbone {name} is not known: "
            + (f"did you mean {near[0]}?" if near else "expected a name of timm")
        )
    patch = re.search(r"patch(\d+)", name)
    sides = [-(-side // int(patch[1])) * int(patch[1]) for side in size] if patch else size
    options = {"num_classes": 0, "img_size": tuple(sides), "dynamic_img_size": True}
    try:
        net = timm.create_model(name, drop_path_rate=drop_path, **options)
    except TypeError:  # others have no such options
        net = None
    if not isinstance(net, VisionTransformer):
        raise UserError(
            f"model.backbone {name} is no plain vision transformer of timm: expected one as "
            "vit_tiny_patch16_384, deit_small_patch16_224 or vit_small_patch8_224.dino"
        )
    return Encoder(net, name, (net.default_cfg["mean"], net.default_cfg["std"]))


def convolutions(patch_size: int, width: int) -> nn.Sequential:
    """(b, 3, h, w) -> (b, width, h / patch_size, w / patch_size), after Xiao et al. 2021.

    Each convolution halves the sides as long as that is possible; the last one, without overlap,
    does what is left.
    """
    n_halvings = min((patch_size & -patch_size).bit_length() - 1, 3)
    widths = [3, *(max(width >> (n_halvings - 1 - i), 8) for i in range(n_halvings))]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.GroupNorm(1, b), nn.GELU()]
        layers += [nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.GroupNorm(1, b), nn.GELU()]
    rest = patch_size >> n_halvings
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], width, rest, rest))


# ---- weights


def load(encoder: Encoder, path: Path) -> None:
    """Fills the encoder from a .safetensors or .pth file; raises UserError unless all of it fits.

    A .pth is read as tensors only, nothing in it is executed. Of a checkpoint with several
    networks the teacher, or the average, is taken; other parts are left out and named in the log.
    """
    found, header = read(path)
    is_dino = any(name.startswith(("teacher.", "student.")) for name in found)
    for start in FIRST:
        if any(name.startswith(start) for name in found):
            found = {k: v for k, v in found.items() if k.startswith(start)}
            break
    found = {_plain(name): value for name, value in found.items()}
    _check(encoder, found, header, is_dino, path)
    net = encoder.net
    own, grid = net.state_dict(), header.get("grid")
    if grid and "pos_embed" in found:  # a grid that is no square cannot be guessed
        found["pos_embed"] = resample_abs_pos_embed(
            found["pos_embed"],
            list(net.patch_embed.grid_size),
            grid,
            num_prefix_tokens=0 if net.no_embed_class else net.num_prefix_tokens,
        )
    before = found.get("pos_embed")
    try:
        found = checkpoint_filter_fn(found, net)
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} does not fit {encoder.title}: {reason}") from None
    missing = sorted(own.keys() - found.keys())
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(own)} weights of {encoder.title}, as "
            f"{missing[0]}; it has {', '.join(sorted(found)[:3])}, ..."
        )
    for name, value in own.items():
        if found[name].shape != value.shape:
            raise UserError(
                f"{path} is of another transformer: {name} is {tuple(found[name].shape)}, "
                f"{encoder.title} expects {tuple(value.shape)}"
            )
        if not found[name].isfinite().all():
            raise UserError(f"{path}: {name} is NaN or infinite")
    net.load_state_dict({name: found[name] for name in own})
    rest = sorted(found.keys() - own.keys())
    log.info(
        "weights of %s: %d of %d loaded from %s%s%s",
        encoder.title,
        len(own),
        len(own),
        path,
        ""
        if before is None or before.shape == own["pos_embed"].shape
        else "; position embeddings resized to {}x{}".format(*net.patch_embed.grid_size),
        f"; left out: {', '.join(rest[:6])}" + ", ..." * (len(rest) > 6) if rest else "",
    )


def fetch(encoder: Encoder) -> None:
    """Fills it with timm's weights of its name, from the cache or the hub; raises UserError."""
    if encoder.name is None:
        raise UserError(
            f"model.pretrained: there are no weights of {encoder.title} to fetch; give a file, "
            "model.weights, or a model.backbone of timm"
        )
    load(encoder, hub_file(encoder.name))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a .safetensors or .pth file by name, and what `describe` said of them.

    Raises UserError for anything else.
    """
    if not path.is_file():
        raise UserError(f"model.weights {path} is absent, expected a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open
            from safetensors.torch import load_file

            tensors = load_file(path)
            with safe_open(path, "pt") as file:
                return tensors, json.loads((file.metadata() or {}).get("encoder", "{}"))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, and was not loaded as it could run any program: "
            "save its state_dict alone"
        ) from None
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is no readable file of weights: {reason}") from None
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    for key in ("teacher", "student"):  # the authors' checkpoints hold both
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = {f"teacher.{name}": value for name, value in found[key].items()}
    if not isinstance(found, dict) or not any(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{path} holds no weights by name, expected a state_dict")
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}, {}


def _plain(name: str) -> str:
    while (shorter := re.sub(rf"^{WRAPPED}", "", name)) != name:
        name = shorter
    return name


def _check(
    encoder: Encoder, found: dict[str, Tensor], header: dict[str, Any], is_dino: bool, path: Path
) -> None:
    """Raises UserError for what would fit by its shapes and yet be another function."""
    numbers = [re.match(r"blocks\.(\d+)\.", name) for name in found]
    depth = 1 + max((int(number[1]) for number in numbers if number), default=-1)
    if depth and depth != len(encoder.net.blocks):
        raise UserError(
            f"{path} has {depth} blocks, {encoder.title} has {len(encoder.net.blocks)}: "
            "half of a network is none"
        )
    usual = encoder.n_heads if encoder.name else max(encoder.width // HEAD_WIDTH, 1)
    heads = header.get("n_heads", usual)  # a file that does not say has the usual number
    if heads != encoder.n_heads:
        raise UserError(
            f"{path} is of {heads} heads, the config's model.n_heads makes {encoder.n_heads}: its "
            "shapes would fit, its features would be others"
        )
    theirs = [tuple(header[key]) for key in ("mean", "std") if key in header]
    if is_dino and not theirs:
        theirs = list(IMAGENET)
    if theirs and [tuple(each) for each in encoder.statistics] != theirs:
        raise UserError(
            f"{path} was trained on images of mean {theirs[0]}, {encoder.title} normalises to "
            f"{tuple(encoder.statistics[0])}: take a model.backbone of the same recipe"
        )


def hub_file(name: str) -> Path:
    """timm's file of weights of a model, from the cache, else from the hub; raises UserError."""
    import timm
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    cfg = timm.get_pretrained_cfg(name)
    repository = cfg.hf_hub_id if cfg else None
    if not repository:
        raise UserError(
            f"model.pretrained: timm has no weights of {name} to fetch; give a file, model.weights"
        )
    file = "model.safetensors"
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    reason = "no answer"
    if not constants.HF_HUB_OFFLINE and hub.is_reachable(constants.ENDPOINT):
        log.info("fetching %s of %s from %s", file, repository, constants.ENDPOINT)
        try:
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # the hub raises its own kinds, and those of the network
            reason = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
    raise UserError(
        f"the weights of {name} ({repository}) are not in the cache {constants.HF_HUB_CACHE} and "
        f"cannot be fetched ({reason}): give a file, model.weights, copy that cache from another "
        "machine, or run this once where there is a network"
    )
