"""Checkpoints as Segmenter's authors write them, and a slow forward pass of them in float64."""

import math

import numpy as np
import torch
import yaml

WIDTH, DEPTH, HEADS, PATCH, DECODER_DEPTH = 128, 2, 2, 8, 2
NORM_EPS = 1e-5  # of all their layer norms
NORMALIZATIONS = {"vit": ([0.5] * 3, [0.5] * 3)}
NORMALIZATIONS["deit"] = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
OPTIONS = ("patch_size", "width", "depth", "n_heads")
SIZES = dict(zip(OPTIONS, (PATCH, WIDTH, DEPTH, HEADS), strict=True))  # of our config


def block_shapes(prefix):
    """Names and shapes of a transformer block."""
    layers = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    layers |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
    layers |= {"norm1": (WIDTH,), "norm2": (WIDTH,)}
    for name, shape in layers.items():
        yield f"{prefix}.{name}.weight", shape
        yield f"{prefix}.{name}.bias", shape[:1]


def shapes(decoder, n_classes, size):
    n_patches = (size[0] // PATCH) * (size[1] // PATCH)
    yield "encoder.cls_token", (1, 1, WIDTH)
    yield "encoder.pos_embed", (1, 1 + n_patches, WIDTH)
    yield "encoder.patch_embed.proj.weight", (WIDTH, 3, PATCH, PATCH)
    yield "encoder.patch_embed.proj.bias", (WIDTH,)
    for i in range(DEPTH):
        yield from block_shapes(f"encoder.blocks.{i}")
    yield from (("encoder.norm.weight", (WIDTH,)), ("encoder.norm.bias", (WIDTH,)))
    yield from (("encoder.head.weight", (1000, WIDTH)), ("encoder.head.bias", (1000,)))
    if decoder == "linear":
        yield from (
            ("decoder.head.weight", (n_classes, WIDTH)),
            ("decoder.head.bias", (n_classes,)),
        )
        return
    yield "decoder.cls_emb", (1, n_classes, WIDTH)
    yield from (("decoder.proj_patch", (WIDTH, WIDTH)), ("decoder.proj_classes", (WIDTH, WIDTH)))
    for i in range(DECODER_DEPTH):
        yield from block_shapes(f"decoder.blocks.{i}")
    yield from (("decoder.proj_dec.weight", (WIDTH, WIDTH)), ("decoder.proj_dec.bias", (WIDTH,)))
    for name, n in (("decoder_norm", WIDTH), ("mask_norm", n_classes)):
        yield from ((f"decoder.{name}.weight", (n,)), (f"decoder.{name}.bias", (n,)))


def state_dict(decoder="mask", n_classes=5, size=(32, 32), scale=0.05):
    """Small weights, so that a wrong epsilon of a layer norm is seen."""
    random = torch.Generator().manual_seed(0)
    return {
        name: scale * torch.randn(shape, generator=random)
        + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for name, shape in shapes(decoder, n_classes, size)
    }


def write(folder, decoder="mask", n_classes=5, size=(32, 32), normalization="vit"):
    """checkpoint.pth and variant.yml; the path of the first, and the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = state_dict(decoder, n_classes, size)
    parameters = [torch.nn.Parameter(value) for value in tensors.values()]
    optimizer = torch.optim.SGD(parameters, 1e-3, 0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0).state_dict()
    content = {"model": tensors, "optimizer": optimizer.state_dict(), "n_cls": n_classes}
    content |= {"lr_scheduler": schedule | {"lr_lambdas": [None]}, "epoch": 63}
    torch.save(content, folder / "checkpoint.pth")
    net = {"backbone": "tiny", "d_model": WIDTH, "n_heads": HEADS, "n_layers": DEPTH}
    net |= {"patch_size": PATCH, "image_size": size, "normalization": normalization}
    net |= {"n_cls": n_classes, "decoder": {"name": decoder}, "distilled": False}
    variant = {"net_kwargs": net, "dataset_kwargs": {"normalization": normalization}}
    (folder / "variant.yml").write_text(yaml.dump(variant))  # a tuple, as theirs
    return folder / "checkpoint.pth", tensors


# ---- the forward pass, in float64 and one token at a time


def layer_norm(x, tensors, name):
    variance = ((x - x.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True)
    normalized = (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + NORM_EPS)
    return normalized * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def linear(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def block(x, tensors, name):
    """Tokens (n, d) -> (n, d)"""
    normed = layer_norm(x, tensors, f"{name}.norm1")
    q, k, v = np.split(linear(normed, tensors, f"{name}.attn.qkv"), 3, axis=1)
    d = WIDTH // HEADS
    mixed = np.zeros_like(x)
    for head in range(HEADS):
        part = np.s_[head * d : (head + 1) * d]
        for i in range(len(x)):
            scores = np.array([q[i, part] @ k[j, part] for j in range(len(x))]) / math.sqrt(d)
            weights = np.exp(scores - scores.max())
            mixed[i, part] = (weights / weights.sum()) @ v[:, part]
    x = x + linear(mixed, tensors, f"{name}.attn.proj")
    hidden = gelu(linear(layer_norm(x, tensors, f"{name}.norm2"), tensors, f"{name}.mlp.fc1"))
    return x + linear(hidden, tensors, f"{name}.mlp.fc2")


def coarse(tensors, image, normalization="vit"):
    """Masks (k, rows, columns) of an image (3, h, w) in [0, 1], sides multiples of PATCH."""
    tensors = {name: value.double().numpy() for name, value in tensors.items()}
    mean, std = (np.array(each)[:, None, None] for each in NORMALIZATIONS[normalization])
    image = (image.double().numpy() - mean) / std
    rows, columns = (side // PATCH for side in image.shape[1:])
    kernel, bias = (tensors[f"encoder.patch_embed.proj.{kind}"] for kind in ("weight", "bias"))
    x = [tensors["encoder.cls_token"][0, 0]]
    for row in range(rows):
        for column in range(columns):
            y0, x0 = PATCH * row, PATCH * column
            patch = image[:, y0 : y0 + PATCH, x0 : x0 + PATCH]
            x.append((kernel * patch).sum((1, 2, 3)) + bias)
    x = np.stack(x) + tensors["encoder.pos_embed"][0]
    for i in range(DEPTH):
        x = block(x, tensors, f"encoder.blocks.{i}")
    x = layer_norm(x, tensors, "encoder.norm")[1:]
    if "decoder.head.weight" in tensors:
        masks = linear(x, tensors, "decoder.head")
    else:
        classes = tensors["decoder.cls_emb"][0]
        x = np.concatenate([linear(x, tensors, "decoder.proj_dec"), classes])
        for i in range(DECODER_DEPTH):
            x = block(x, tensors, f"decoder.blocks.{i}")
        x = layer_norm(x, tensors, "decoder.decoder_norm")
        patches = x[: rows * columns] @ tensors["decoder.proj_patch"]
        classes = x[rows * columns :] @ tensors["decoder.proj_classes"]
        patches /= np.linalg.norm(patches, axis=1, keepdims=True)
        classes /= np.linalg.norm(classes, axis=1, keepdims=True)
        masks = layer_norm(patches @ classes.T, tensors, "decoder.mask_norm")
    return masks.T.reshape(-1, rows, columns)
