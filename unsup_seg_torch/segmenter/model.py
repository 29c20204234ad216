"""Segmenter (Strudel et al. 2021, figure 2): from a transformer's tokens to a class per pixel."""

import logging
from pathlib import Path

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from common.pytorch import weights
from unsup_seg_torch.segmenter import config
from unsup_seg_torch.vit import encoder as encoders
from unsup_seg_torch.vit import weights as vit_weights
from unsup_seg_torch.vit.encoder import HEAD_WIDTH, Encoder

log = logging.getLogger("unsup_seg_torch.segmenter.model")

PRETRAINED = "vit_tiny_patch16_384"  # the default backbone if model.pretrained is true


class Linear(nn.Module):
    """Patch tokens (b, n, d) -> logits (b, n, cells of a patch, classes)."""

    def __init__(self, width: int, n_classes: int, n_cells: int):
        super().__init__()
        self.n_classes = n_classes
        self.head = nn.Linear(width, n_classes * n_cells)
        _init(self.head)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(tokens).unflatten(2, (-1, self.n_classes))


class MaskTransformer(nn.Module):
    """Patch tokens (b, n, d) -> logits (b, n, cells, classes); section 3.2.

    One learned token per class is processed jointly with the patches; a class mask is the cosine
    similarity of its token and the patches, layer-normalized over the classes.
    """

    def __init__(
        self, width: int, n_classes: int, n_cells: int, depth: int = 2, dropout: float = 0.1
    ):
        super().__init__()
        self.n_classes, self.n_cells = n_classes, n_cells
        self.project = nn.Linear(width, width)
        self.classes = nn.Parameter(torch.empty(1, n_classes, width))
        heads = max(width // HEAD_WIDTH, 1)
        # as the authors' code: no drop path, and PyTorch's epsilon 1e-5 in all norms, not timm's
        options = {"qkv_bias": True, "proj_drop": dropout, "attn_drop": dropout}
        self.blocks = nn.Sequential(
            *(Block(width, heads, norm_layer=nn.LayerNorm, **options) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.of_patch = nn.Linear(width, width * n_cells, bias=False)
        self.of_class = nn.Linear(width, width, bias=False)
        self.norm_classes = nn.LayerNorm(n_classes)
        self.apply(_init)
        nn.init.trunc_normal_(self.classes, std=0.02)
        for layer in (self.of_patch, self.of_class):
            nn.init.normal_(layer.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = torch.cat([self.project(tokens), self.classes.expand(len(tokens), -1, -1)], 1)
        tokens = self.norm(self.blocks(tokens))
        patches, classes = tokens[:, : -self.n_classes], tokens[:, -self.n_classes :]
        patches = self.of_patch(patches).unflatten(2, (self.n_cells, -1))  # (b, n, cells, d)
        classes = F.normalize(self.of_class(classes), dim=2)  # (b, k, d)
        masks = F.normalize(patches, dim=3) @ classes[:, None].transpose(2, 3)
        return self.norm_classes(masks)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Segmenter(nn.Module):
    """Images (b, 3, h, w) in [0, 1] of any size -> logits (b, classes, h, w).

    cells: cells x cells logits per patch and class, for thin objects; paper: 1.
    """

    def __init__(
        self,
        encoder: Encoder,
        n_classes: int,
        *,
        decoder: str = "mask",
        depth: int = 2,
        dropout: float = 0.1,
        cells: int = 1,
    ):
        super().__init__()
        self.encoder = encoder
        self.n_classes = n_classes
        self.cells = cells
        if decoder == "linear":
            self.decoder: nn.Module = Linear(encoder.width, n_classes, cells**2)
        else:
            sizes = encoder.width, n_classes, cells**2
            self.decoder = MaskTransformer(*sizes, depth, dropout)

    def coarse(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> logits per cell (b, k, rows, columns)"""
        rows, columns = self.encoder.grid(*images.shape[2:])
        tokens = self.encoder(images)[:, self.encoder.n_prefix :]
        logits = self.decoder(tokens).float()  # (b, n, cells, k)
        logits = logits.view(-1, rows, columns, self.cells, self.cells, self.n_classes)
        return logits.permute(0, 5, 1, 3, 2, 4).flatten(2, 3).flatten(3)

    def forward(self, images: Tensor) -> Tensor:
        h, w = images.shape[2:]
        coarse, patch = self.coarse(images), self.encoder.patch_size
        size = [side * patch // self.cells for side in coarse.shape[2:]]
        return F.interpolate(coarse, size, mode="bilinear")[..., :h, :w]


def build(cfg: config.Model, n_classes: int, crop: tuple[int, int]) -> Segmenter:
    """With random weights; raises UserError for an unknown backbone."""
    encoder = encoders.build(
        cfg.backbone or (PRETRAINED if cfg.pretrained else None),
        crop,
        patch_size=cfg.patch_size,
        width=cfg.width,
        depth=cfg.depth,
        n_heads=cfg.n_heads,
        drop_path=cfg.drop_path,
    )
    return Segmenter(
        encoder,
        n_classes,
        decoder=cfg.decoder,
        depth=cfg.decoder_depth,
        dropout=cfg.dropout,
        cells=cfg.cells,
    )


def load_start_weights(cfg: config.Model, net: Segmenter) -> None:
    """Loads the weights that the config names, if any: all that the file has, or UserError.

    A file with a decoder, of our runs or of the authors, must fit the decoder too, unless
    model.load_decoder is false.
    """
    if cfg.weights:
        path = Path(cfg.weights)
        saved, header = vit_weights.read(path)
        saved = vit_weights.select(saved, path)
        decoder = {name: saved.pop(name) for name in list(saved) if name.startswith("decoder.")}
        if not (decoder and cfg.load_decoder):
            vit_weights.load_tensors(net.encoder, saved, header, path)
            log.info("%s: the encoder only, the decoder has random weights", path)
            return
        vit_weights.fit(net.encoder, saved, header, path)  # raises before anything changes
        net.decoder.load_state_dict(fit_decoder(net, decoder, path))
        vit_weights.load_tensors(net.encoder, saved, header, path)
        log.info("%s: the decoder of %d classes loaded too", path, net.n_classes)
    elif cfg.pretrained:
        vit_weights.load_pretrained(net.encoder)


# The authors' names in their mask transformer, and ours
AUTHORS_NAMES = {
    "cls_emb": "classes",
    "proj_dec.": "project.",
    "proj_patch": "of_patch.weight",
    "proj_classes": "of_class.weight",
    "decoder_norm.": "norm.",
    "mask_norm.": "norm_classes.",
}


def fit_decoder(net: Segmenter, saved: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors "decoder.NAME" of a file as those of the decoder; UserError unless all fit."""
    tensors = {}
    for name, value in saved.items():
        name = name.removeprefix("decoder.")
        if name in ("proj_patch", "proj_classes"):  # they multiply from the right
            value = value.T
        for theirs, ours in AUTHORS_NAMES.items():
            if name == theirs or (theirs.endswith(".") and name.startswith(theirs)):
                name = ours + name.removeprefix(theirs)
                break
        tensors[name] = value
    kind = "linear" if isinstance(net.decoder, Linear) else "mask"
    title = f"the {kind} decoder of {net.n_classes} classes (model.load_decoder false skips it)"
    weights.check(tensors, net.decoder.state_dict(), path, title)
    return tensors


def n_classes(path: Path, cells: int) -> int:
    """Number of classes of the decoder in a file; raises UserError if there is none."""
    for name, value in vit_weights.select(vit_weights.read(path)[0], path).items():
        if name in ("decoder.cls_emb", "decoder.classes") and value.ndim == 3:
            return value.shape[1]
        if name == "decoder.head.weight":
            return max(len(value) // cells**2, 1)
    raise UserError(f"{path} has no decoder: expected weights of a whole Segmenter")
