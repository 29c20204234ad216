"""The trunk: a network from images to features, with its preprocessing."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from deepcluster_torch.model import weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ARCHS = ("alexnet", "vgg11", "vgg16", "resnet18", "resnet50", "resnet")


def build(
    name: str,
    shape: tuple[int, int, int],
    *,
    sobel: bool = False,
    width: int = 64,
    n_blocks: int = 2,
    stem_stride: int | None = None,
    n_hidden: int = 4096,
    pretrained: bool = False,
) -> "Trunk":
    """The trunk of that name for images of `shape` (c, h, w), with random or timm's weights.

    name: one of ARCHS, where resnet has four stages of n_blocks blocks with 1, 2, 4 and 8 times
    `width` channels; else a timm model. stem_stride: downsampling before the first stage of a
    ResNet, 1, 2 or 4, chosen from the image size by default. n_hidden: units of the two fully
    connected layers of alexnet and vgg; 0: global average pooling instead.
    Raises UserError for an unknown name, for images that are too small, and with `pretrained` if
    timm has no such weights or cannot download them.
    """
    side = min(shape[1:])
    n_in = 2 if sobel else 3
    if name in ("alexnet", "vgg11", "vgg16"):
        body: nn.Module = VGGLike(name, side, n_in, n_hidden)
    elif name in ("resnet", "resnet18", "resnet50"):
        if stem_stride is None:
            stem_stride = 4 if side >= 112 else 2 if side >= 56 else 1
        block = Bottleneck if name == "resnet50" else BasicBlock
        counts = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}.get(name, 4 * (n_blocks,))
        body = ResNet(block, counts, width if name == "resnet" else 64, stem_stride, n_in)
    else:
        body = weights.timm_model(name, side, n_in, pretrained, ARCHS)
        return Trunk(name, shape, Preprocess(sobel, *body.statistics), body)
    trunk = Trunk(name, shape, Preprocess(sobel, IMAGENET_MEAN, IMAGENET_STD), body)
    if pretrained:
        weights.load_from_timm(trunk)
    return trunk


class Trunk(nn.Module):
    """Images float (b, 1 or 3, h, w) in [0, 1] -> features (b, n_features).

    Works with other image sizes than `shape` too. The features of alexnet and vgg are those before
    the last ReLU (paper, section 4), which `Head` applies.
    """

    def __init__(
        self, name: str, shape: tuple[int, int, int], preprocess: nn.Module, body: nn.Module
    ):
        super().__init__()
        self.name, self.shape, self.n_features = name, shape, body.n_features
        self.preprocess, self.body = preprocess, body

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.preprocess(images))

    def activations(self, images: Tensor) -> dict[str, Tensor]:
        """The output of each stage with spatial positions: "conv1" (b, c1, h1, w1), ..."""
        outputs: dict[str, Tensor] = {}

        def record(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(module: nn.Module, inputs: object, output: object) -> None:
                if isinstance(output, Tensor) and output.ndim == 3:  # tokens (b, positions, c)
                    output = output.transpose(1, 2).unsqueeze(3)
                if isinstance(output, Tensor) and output.ndim == 4:
                    outputs[name] = output

            return self.body.stages[name].register_forward_hook(hook)

        handles = [record(name) for name in self.body.stages]
        try:
            self(images)
        finally:
            for handle in handles:
                handle.remove()
        return outputs

    def first_filters(self) -> Tensor:
        """Weights (n, c, h, w) of the first convolution; raises UserError if there is none."""
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                return module.weight
        raise UserError(f"{self.name} has no convolution, so no filters to show")


class Preprocess(nn.Module):
    """Images (b, 1 or 3, h, w) in [0, 1] -> normalized RGB (b, 3, h, w), or gradients (b, 2, h, w).

    The gradients are horizontal and vertical Sobel filters of the mean of the normalized channels,
    fixed (paper, section 3.1).
    """

    def __init__(self, sobel: bool, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        horizontal = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        kernels = torch.stack([horizontal, horizontal.T])[:, None].expand(2, 3, 3, 3) / 3
        tensors = {
            "mean": torch.tensor(mean).view(3, 1, 1),
            "std": torch.tensor(std).view(3, 1, 1),
            "kernels": kernels.clone() if sobel else None,
        }
        for name, value in tensors.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        rgb = (images - self.mean) / self.std
        return rgb if self.kernels is None else F.conv2d(rgb, self.kernels, padding=1)


# ---- alexnet, vgg

# (channels, kernel, stride, padding) of a convolution, or a max pooling (kernel, stride)
LAYERS = {
    "alexnet": [(96, 11, 4, 2), (3, 2), (256, 5, 1, 2), (3, 2), (384, 3, 1, 1), (384, 3, 1, 1),
                (256, 3, 1, 1), (3, 2)],
    "vgg11": [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0],
    "vgg16": [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0],
}  # fmt: skip


class VGGLike(nn.Module):
    """VGG, or AlexNet in one tower and without local response normalization; with batch norm.

    Names and order of the layers are those of the authors and of torchvision, so their weights
    fit.
    """

    def __init__(self, name: str, side: int, n_in: int, n_hidden: int):
        super().__init__()
        layers: list[nn.Module] = []
        self.stages: dict[str, nn.Module] = {}
        map_side = side
        for layer in LAYERS[name]:
            if isinstance(layer, int):
                layer = (layer, 3, 1, 1) if layer else (2, 2)
            if len(layer) == 2:
                kernel, stride, padding = *layer, 0
                layers.append(nn.MaxPool2d(kernel, stride))
            else:
                n_out, kernel, stride, padding = layer
                relu = nn.ReLU(inplace=True)
                convolution = nn.Conv2d(n_in, n_out, kernel, stride, padding)
                layers += [convolution, nn.BatchNorm2d(n_out), relu]
                self.stages[f"conv{len(self.stages) + 1}"] = relu
                n_in = n_out
            map_side = (map_side + 2 * padding - kernel) // stride + 1
            if map_side < 1:
                minimum = 63 if name == "alexnet" else 32
                raise UserError(
                    f"images of {side} pixels are too small for {name}, which needs {minimum}: "
                    "raise dataset.size, or use model.arch resnet"
                )
        self.features = nn.Sequential(*layers)
        # maps of images of another size are pooled to the size that the layers were built for
        self.pool = nn.AdaptiveAvgPool2d(map_side if n_hidden else 1)
        self.classifier = nn.Identity()
        self.n_features = n_hidden or n_in
        if n_hidden:
            first, last = nn.Linear(n_in * map_side**2, n_hidden), nn.Linear(n_hidden, n_hidden)
            hidden: list[nn.Module] = [first, nn.ReLU(inplace=True), nn.Dropout(), last]
            self.classifier = nn.Sequential(*[nn.Dropout()] * (name == "alexnet"), *hidden)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


# ---- resnet


class ResNet(nn.Module):
    """ResNet (He et al. 2016) with a smaller stem for small images.

    stem_stride 4: 7x7 convolution with stride 2 and max pooling; 2: 3x3 with stride 2; 1: 3x3.
    Layers are named as in torchvision and timm.
    """

    def __init__(
        self,
        block: "type[BasicBlock | Bottleneck]",
        counts: tuple[int, ...],
        width: int,
        stem_stride: int,
        n_in: int,
    ):
        super().__init__()
        kernel = 7 if stem_stride == 4 else 3
        stride = min(stem_stride, 2)
        self.conv1 = Conv2d(n_in, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_stride == 4 else nn.Identity()
        n_in = width
        self.stages: dict[str, nn.Module] = {"conv1": self.relu}
        for i, count in enumerate(counts):
            blocks = []
            for j in range(count):
                blocks.append(block(n_in, width << i, 2 if i and j == 0 else 1))
                n_in = (width << i) * block.EXPANSION
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.stages[f"layer{i + 1}"] = self.get_submodule(f"layer{i + 1}")
        self.n_features = n_in
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name, stage in self.stages.items():
            if name != "conv1":
                x = stage(x)
        return x.mean((2, 3))


class Conv2d(nn.Conv2d):
    """Convolution that computes in float32 if its output is one pixel wide.

    For such outputs with a stride, PyTorch 2.14.1 on CPUs leaves uninitialized memory in the
    bfloat16 gradient of the weights that only see padding.
    """

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[3] + 2 * self.padding[1] - self.kernel_size[1] + 1  # at stride 1
        if width > self.stride[1]:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection."""

    EXPANSION = 1

    def __init__(self, n_in: int, n: int, stride: int):
        super().__init__()
        self.conv1 = Conv2d(n_in, n, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n)
        self.conv2 = nn.Conv2d(n, n, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n)
        self.downsample = _shortcut(n_in, n, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu_()
        return self.bn2(self.conv2(y)).add_(self.downsample(x)).relu_()


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide, with a residual connection."""

    EXPANSION = 4

    def __init__(self, n_in: int, n: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n)
        self.conv2 = Conv2d(n, n, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n)
        self.conv3 = nn.Conv2d(n, 4 * n, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * n)
        self.downsample = _shortcut(n_in, 4 * n, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y)).relu_()
        return self.bn3(self.conv3(y)).add_(self.downsample(x)).relu_()


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Module:
    if n_in == n_out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


def _initialize(body: nn.Module) -> None:
    """As the authors: convolutions N(0, 2 / (k^2 n_out)), linear layers N(0, 0.01^2), biases 0."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            n = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, 0, math.sqrt(2 / n))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
