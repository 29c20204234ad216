"""W-Net (Xia and Kulis 2017, figure 2): a U-Net from the image to K labels, and one back."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unsup_seg_torch.wnet import config


class Separable(nn.Module):
    """Depthwise separable convolution: 3x3 per channel, then 1x1 across channels."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(maps))


class Module(nn.Sequential):
    """Two convolutions, each with ReLU and batch norm: (b, c, h, w) -> (b, d, h, w)."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0, separable: bool = True):
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            if separable:
                layers.append(Separable(channels, outputs))
            else:
                layers.append(nn.Conv2d(channels, outputs, 3, padding=1))
            layers += [nn.ReLU(inplace=True), nn.BatchNorm2d(outputs)]
        super().__init__(*layers, *([nn.Dropout2d(dropout, inplace=True)] if dropout else []))


class UNet(nn.Module):
    """(b, inputs, h, w) -> (b, outputs, h, w), h and w multiples of 2 ** depth.

    The first and the last module have ordinary convolutions, the others separable ones. Each level
    down halves the sides and doubles the channels; on the way up the feature maps of the same level
    are concatenated.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, dropout: float):
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.first = Module(inputs, width, separable=False)
        self.down = nn.ModuleList(
            Module(above, below, dropout) for above, below in zip(widths, widths[1:], strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * above, above, 2, stride=2) for above in reversed(widths[:-1])
        )
        self.join = nn.ModuleList(
            Module(2 * above, above, dropout if above > width else 0, separable=above > width)
            for above in reversed(widths[:-1])
        )
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        levels = [self.first(maps)]
        for down in self.down:
            levels.append(down(F.max_pool2d(levels[-1], 2)))
        maps = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            maps = join(torch.cat([levels.pop(), up(maps)], 1))
        return self.last(maps)


class WNet(nn.Module):
    """Images (b, 3, h, w) in [0, 1] of any size -> probabilities (b, k, h, w), reconstructions."""

    def __init__(self, n_clusters: int, width: int = 64, depth: int = 4, dropout: float = 0):
        super().__init__()
        self.multiple = 2**depth
        self.encoder = UNet(3, n_clusters, width, depth, dropout)
        self.decoder = UNet(n_clusters, 3, width, depth, dropout)

    def encode(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> the probability of each label at each pixel (b, k, h, w)."""
        return self._at_any_size(lambda padded: self.encoder(2 * padded - 1).softmax(1), images)

    def decode(self, probabilities: Tensor) -> Tensor:
        """(b, k, h, w) -> (b, 3, h, w), approximately in [0, 1]"""
        # centered like the input: the untrained outputs, near 0, are gray and not black
        return self._at_any_size(lambda padded: (self.decoder(padded) + 1) / 2, probabilities)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = self.encode(images)
        return probabilities, self.decode(probabilities)

    def _at_any_size(self, net: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
        """Pads to a multiple of 2 ** depth by repeating the border, and crops the result."""
        h, w = maps.shape[2:]
        # at least two, since batch norm cannot train on a single pixel at the lowest level
        tall, wide = (max(-(-side // self.multiple), 2) * self.multiple for side in (h, w))
        if (tall, wide) == (h, w):
            return net(maps)
        return net(F.pad(maps, (0, wide - w, 0, tall - h), mode="replicate"))[..., :h, :w]


def build(cfg: config.Model) -> WNet:
    return WNet(cfg.n_clusters, cfg.width, cfg.depth, cfg.dropout)
