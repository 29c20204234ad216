"""Networks from images to features; weights.py fills them from files, heads.py stands on them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from deepcluster_torch import weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the colours of ImageNet
load = weights.load  # for those who have a trunk already
ARCHS = ("alexnet", "vgg11", "vgg16", "resnet18", "resnet50", "resnet")


def build(
    name: str,
    shape: tuple[int, int, int],
    *,
    sobel: bool = False,
    width: int = 64,
    n_blocks: int = 2,
    n_halvings: int | None = None,
    n_hidden: int = 4096,
    pretrained: bool = False,
) -> "Trunk":
    """The trunk of that name for images of `shape` (c, h, w), with random or timm's weights.

    name: one of ARCHS, where resnet has stages of `width`, 2 width, 4 width and 8 width channels
    with n_blocks each; else a model of timm. n_halvings: of a resnet's image before its first
    stage, 0 to 2; by default as many as its size bears. n_hidden: of alexnet's and vgg's two fully
    connected layers; 0 is none, the mean over the places instead.
    Raises UserError for an unknown name, for images that are too small, and for `pretrained` where
    timm has no such weights or cannot be reached.
    """
    side = min(shape[1:])
    n_in = 2 if sobel else 3
    if name in ("alexnet", "vgg11", "vgg16"):
        body: nn.Module = Plain(name, side, n_in, n_hidden)
    elif name in ("resnet", "resnet18", "resnet50"):
        if n_halvings is None:
            n_halvings = 2 if side >= 112 else 1 if side >= 56 else 0
        block = Bottleneck if name == "resnet50" else Block
        counts = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}.get(name, 4 * (n_blocks,))
        body = ResNet(block, counts, width if name == "resnet" else 64, n_halvings, n_in)
    else:
        body = weights.timm_model(name, side, n_in, pretrained, ARCHS)
        return Trunk(name, shape, Front(sobel, *body.statistics), body)
    trunk = Trunk(name, shape, Front(sobel, MEAN, STD), body)
    if pretrained:
        weights.load_from_timm(trunk)
    return trunk


class Trunk(nn.Module):
    """Images float (b, c, h, w) in [0, 1] -> features (b, n_features).

    Gray images count as ones in colour. Other sizes than the one it was built for work, too. The
    features of alexnet and vgg are those before the last ReLU (paper, section 4); `Head` puts it
    back.
    """

    def __init__(self, name: str, shape: tuple[int, int, int], front: nn.Module, body: nn.Module):
        super().__init__()
        self.name, self.shape, self.n_features = name, shape, body.n_features
        self.front, self.body = front, body

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.front(images))

    def activations(self, images: Tensor) -> dict[str, Tensor]:
        """After each stage: "conv1" (b, c1, h1, w1), ...; for probes and pictures."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> torch.utils.hooks.RemovableHandle:
            def hook(module: nn.Module, inputs: object, output: object) -> None:
                if isinstance(output, Tensor) and output.ndim == 3:  # tokens (b, places, c)
                    output = output.transpose(1, 2).unsqueeze(3)
                if isinstance(output, Tensor) and output.ndim == 4:
                    found[name] = output

            return self.body.stages[name].register_forward_hook(hook)

        handles = [keep(name) for name in self.body.stages]
        try:
            self(images)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def first_filters(self) -> Tensor:
        """Weights (n, c, h, w) of the first convolution; raises UserError if there is none."""
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                return module.weight
        raise UserError(f"{self.name} has no convolution whose filters could be shown")


class Front(nn.Module):
    """Images (b, 1 or 3, h, w) in [0, 1] -> normalised colours (b, 3, h, w), or edges (b, 2, h, w).

    The edges are Sobel's, of the mean of the normalised colours: horizontal and vertical, not
    learned (paper, section 3.1).
    """

    def __init__(self, sobel: bool, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        kernels = torch.stack([across, across.T])[:, None].expand(2, 3, 3, 3) / 3
        tensors = {
            "mean": torch.tensor(mean).view(3, 1, 1),
            "std": torch.tensor(std).view(3, 1, 1),
            "kernels": kernels.clone() if sobel else None,
        }
        for name, value in tensors.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        colours = (images - self.mean) / self.std
        return colours if self.kernels is None else F.conv2d(colours, self.kernels, padding=1)


# ---- alexnet, vgg

# (channels, kernel, stride, padding) of a convolution, or a max pooling (kernel, stride)
LAYERS = {
    "alexnet": [(96, 11, 4, 2), (3, 2), (256, 5, 1, 2), (3, 2), (384, 3, 1, 1), (384, 3, 1, 1),
                (256, 3, 1, 1), (3, 2)],
    "vgg11": [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0],
    "vgg16": [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0],
}  # fmt: skip


class Plain(nn.Module):
    """AlexNet in one tower, without its local normalisation, or VGG; all with batch norm.

    The parts have the names and the order of the authors' and of torchvision's, so that their
    weights fit.
    """

    def __init__(self, name: str, side: int, n_in: int, n_hidden: int):
        super().__init__()
        layers: list[nn.Module] = []
        self.stages: dict[str, nn.Module] = {}
        left = side
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
            left = (left + 2 * padding - kernel) // stride + 1
            if left < 1:
                least = 63 if name == "alexnet" else 32
                raise UserError(
                    f"images of {side} pixels are too small for {name}, it needs {least}: raise "
                    "dataset.size, or take resnet"
                )
        self.features = nn.Sequential(*layers)
        # the places that images of another size have, as those it was built for
        self.pool = nn.AdaptiveAvgPool2d(left if n_hidden else 1)
        self.classifier = nn.Identity()
        self.n_features = n_hidden or n_in
        if n_hidden:
            first, last = nn.Linear(n_in * left**2, n_hidden), nn.Linear(n_hidden, n_hidden)
            hidden: list[nn.Module] = [first, nn.ReLU(inplace=True), nn.Dropout(), last]
            self.classifier = nn.Sequential(*[nn.Dropout()] * (name == "alexnet"), *hidden)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


# ---- resnet


class ResNet(nn.Module):
    """ResNet (He et al. 2016) whose first convolution is as large as the images bear.

    n_halvings 2: 7x7 with stride 2 and max pooling; 1: 3x3 with stride 2; 0: 3x3. The parts have
    the names of torchvision's and timm's.
    """

    def __init__(
        self,
        block: "type[Block | Bottleneck]",
        counts: tuple[int, ...],
        width: int,
        n_halvings: int,
        n_in: int,
    ):
        super().__init__()
        kernel = 7 if n_halvings == 2 else 3
        stride = 2 if n_halvings else 1
        self.conv1 = Conv2d(n_in, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if n_halvings == 2 else nn.Identity()
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
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name, stage in self.stages.items():
            if name != "conv1":
                x = stage(x)
        return x.mean((2, 3))


class Conv2d(nn.Conv2d):
    """In float32 where its map is one pixel wide.

    There, with a stride, PyTorch 2.14.1 on a CPU leaves what the memory held before in the
    bfloat16 gradient of weights that meet nothing but padding: any number, or nan.
    """

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[3] + 2 * self.padding[1] - self.kernel_size[1] + 1  # at stride 1
        if width > self.stride[1]:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Block(nn.Module):
    """Two 3x3 convolutions around which the input goes."""

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
    """1x1, 3x3 and 1x1 convolutions, the last one four times as wide."""

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


def _initialise(body: nn.Module) -> None:
    """Convolutions N(0, 2 / (k^2 n_out)), linear layers N(0, 0.01^2), biases 0: the authors'."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            n = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, 0, math.sqrt(2 / n))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
