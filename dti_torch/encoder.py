"""Encoders: images to the features from which the transformations are predicted."""

from torch import Tensor, nn
from torch.nn import functional as F


def build(name: str, shape: tuple[int, int, int]) -> nn.Module:
    """Images (b, c, h, w) of `shape` (c, h, w), in [0, 1] -> features (b, f).

    `name` as in config.Encoder.
    """
    if name == "strided":
        return Strided(shape)
    depth = int(name.removeprefix("resnet"))
    if depth in (18, 34, 50):
        return image_resnet(depth)
    return SmallResNet(depth, shape[0])


class Strided(nn.Module):
    """Three 3x3 convolutions on the image, average-pooled to about 14 pixels first.

    A thirtieth of the cost of resnet20 at 28 pixels. The 128 features keep positions: a linear
    layer over all of them, without global pooling.
    """

    SIDE = 14

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        n_channels, height, width = shape
        factor = max(1, min(height, width) // self.SIDE)
        height, width = height // factor, width // factor
        layers: list[nn.Module] = [nn.AvgPool2d(factor)]
        for n_out, stride in ((32, 1), (64, 2), (64, 2)):
            layers += [
                nn.Conv2d(n_channels, n_out, 3, stride, 1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
            ]
            n_channels, height, width = n_out, -(-height // stride), -(-width // stride)
        head = nn.Linear(n_channels * height * width, 128)
        self.layers = nn.Sequential(*layers, nn.Flatten(), head, nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class SmallResNet(nn.Module):
    """ResNet for small images (He et al. 2016, section 4.2), with parameter-free shortcuts."""

    def __init__(self, depth: int, n_channels: int):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(n_channels, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        ]
        n_in = 16
        for n_out in (16, 32, 64):
            for _ in range((depth - 2) // 6):
                layers.append(Block(n_in, n_out))
                n_in = n_out
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean((2, 3))  # (b, 64)


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.n_new = n_out - n_in
        self.convolution1 = nn.Conv2d(n_in, n_out, 3, n_out // n_in, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.convolution2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.convolution1(x)).relu_()
        y = self.norm2(self.convolution2(y))
        if self.n_new:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.n_new // 2, self.n_new // 2))
        return y.add_(x).relu_()


def image_resnet(depth: int) -> nn.Module:
    """torchvision's ResNet, untrained and without classifier; gray images become RGB."""
    from torchvision import models

    net = getattr(models, f"resnet{depth}")(weights=None)
    net.fc = nn.Identity()
    return nn.Sequential(ThreeChannels(), net)


class ThreeChannels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)
