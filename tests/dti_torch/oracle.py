"""A slow reference implementation of DTI clustering for the tests and the benchmark.

It follows the paper: every distance has gradients, prototypes are processed one after the other,
each with an MLP per transformation. Only encoder and config are shared with dti_torch.
"""

from functools import cache

import torch
from scipy.signal.windows import gaussian
from torch import Tensor, nn
from torch.nn import functional as F

from dti_torch import config, encoder
from dti_torch.model import DTI


class Oracle(nn.Module):
    def __init__(self, cfg: config.Model, prototypes: Tensor):
        super().__init__()
        n_prototypes, c, h, w = prototypes.shape
        self.cfg = cfg
        self.n_active = 1
        self.prototypes = nn.Parameter(prototypes.clone())
        if cfg.name == "dtigmm":
            self.sigmas = nn.Parameter(torch.full_like(prototypes, cfg.sigma_init))
            self.mixing_logits = nn.Parameter(torch.ones(n_prototypes))
        self.encoder = encoder.build(cfg.encoder, (c, h, w))
        with torch.no_grad():
            n_features = self.encoder.eval()(torch.zeros(1, c, h, w)).shape[1]
        self.train()
        n_outputs = {
            "color": 2 * c,
            "affine": 6,
            "projective": 9,
            "tps": 2 * cfg.grid_size**2,
            "morpho": 1 + cfg.kernel_size**2,
        }
        self.regressors = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(t): mlp(n_features, n_outputs[name])
                    for t, name in enumerate(cfg.transformations)
                    if name != "identity"
                }
            )
            for _ in range(n_prototypes)
        )
        self.pixel_weights = torch.ones(h, w)
        if cfg.gaussian_weights_std:
            ys, xs = (torch.from_numpy(gaussian(n, cfg.gaussian_weights_std)) for n in (h, w))
            self.pixel_weights = torch.outer(ys, xs).to(prototypes)

    def distances(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> (b, k): mean squared error, or for the GMM -log likelihood"""
        features = self.encoder(images)
        columns = []
        for k, regressors in enumerate(self.regressors):
            means = self.prototypes[k].expand_as(images)
            sigmas = self.sigmas[k].expand_as(images) if self.cfg.name == "dtigmm" else None
            for t, name in enumerate(self.cfg.transformations[: self.n_active]):
                if name == "identity":
                    continue
                parameters = regressors[str(t)](features)
                means = transformed(name, means, parameters, self.cfg)
                if sigmas is not None and name in ("affine", "projective", "tps"):
                    sigmas = transformed(name, sigmas, parameters, self.cfg)
            if sigmas is None:
                columns.append(((images - means) ** 2 * self.pixel_weights).mean((1, 2, 3)))
            else:
                normal = torch.distributions.Normal(
                    means, (sigmas**2 + self.cfg.var_min).sqrt(), validate_args=False
                )
                columns.append(-(normal.log_prob(images) * self.pixel_weights).sum((1, 2, 3)))
        return torch.stack(columns, dim=1)

    def loss(self, images: Tensor) -> Tensor:
        distances = self.distances(images)
        if self.cfg.name == "dtikmeans":
            return distances.min(dim=1).values.mean()
        joint = self.mixing_logits.log_softmax(0) - distances
        gammas = joint.detach().softmax(1)
        return -(gammas * joint).sum(1).mean()

    @torch.no_grad()
    def copy_from(self, net: DTI) -> None:
        """Copies the weights of our model, whose MLPs are stacked."""
        self.n_active = net.n_active
        self.encoder.load_state_dict(net.encoder.state_dict())
        for name in ("prototypes", "sigmas", "mixing_logits"):
            if hasattr(net, name):
                getattr(self, name).copy_(getattr(net, name))
        for k, regressors in enumerate(self.regressors):
            for t, layers in regressors.items():
                ours = net.regressors[t]
                for i, linear in enumerate(layers[::2]):
                    linear.weight.copy_(ours.weights[i][k].T)
                    linear.bias.copy_(ours.biases[i][k, 0])

    def gradients(self) -> dict[str, Tensor | None]:
        """Gradients by the parameter names of our model, stacked as there."""
        gradients = {
            name: p.grad for name, p in self.named_parameters() if "regressors" not in name
        }
        for t in self.regressors[0]:
            for i in range(3):
                linears = [regressors[t][2 * i] for regressors in self.regressors]
                if linears[0].weight.grad is None:
                    continue
                weights = torch.stack([linear.weight.grad for linear in linears])
                biases = torch.stack([linear.bias.grad for linear in linears])
                gradients[f"regressors.{t}.weights.{i}"] = weights.mT
                gradients[f"regressors.{t}.biases.{i}"] = biases[:, None]
        return gradients


def mlp(n_features: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_features, 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, n_outputs),
    )


def transformed(name: str, images: Tensor, parameters: Tensor, cfg: config.Model) -> Tensor:
    """images (b, c, h, w), parameters (b, p) -> (b, c, h, w)"""
    if name == "color":
        gain, bias = parameters[:, :, None, None].chunk(2, dim=1)
        return images * (1 + gain) + bias
    if name == "morpho":
        return morpho(images, parameters, cfg.kernel_size, cfg.legacy)
    grids = {"affine": affine_grid, "projective": projective_grid, "tps": tps_grid}
    grid = grids[name](images.shape, parameters, cfg)
    return F.grid_sample(images, grid, padding_mode=cfg.padding, align_corners=False)


def affine_grid(shape: torch.Size, parameters: Tensor, cfg: config.Model) -> Tensor:
    matrices = torch.eye(2, 3) + parameters.view(-1, 2, 3)
    return F.affine_grid(matrices, list(shape), align_corners=False)


def projective_grid(shape: torch.Size, parameters: Tensor, cfg: config.Model) -> Tensor:
    points = start(*shape[2:], corners=cfg.legacy)
    homogeneous = torch.cat([points, torch.ones(len(points), 1)], dim=1)
    mapped = torch.einsum("bij,pj->bpi", torch.eye(3) + parameters.view(-1, 3, 3), homogeneous)
    return (mapped[..., :2] / mapped[..., 2:]).view(-1, *shape[2:], 2)


def tps_grid(shape: torch.Size, parameters: Tensor, cfg: config.Model) -> Tensor:
    lattice, system, rows = spline(*shape[2:], cfg.grid_size, cfg.legacy, torch.get_default_dtype())
    targets = lattice + parameters.view(len(parameters), -1, 2)
    coefficients = torch.linalg.solve(system, F.pad(targets, (0, 0, 0, 3)))
    return (rows @ coefficients).view(-1, *shape[2:], 2)


@cache
def spline(
    h: int, w: int, size: int, legacy: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Control points (n, 2), the system (n + 3, n + 3) of their weights, its rows per pixel."""
    lattice = start(size, size, corners=True)

    def rows(points: Tensor) -> Tensor:
        r = torch.cdist(points, lattice, compute_mode="donot_use_mm_for_euclid_dist")
        kernel = torch.where(r > 0, r**2 * (r**2).clamp(min=1e-30).log() / 2, 0)
        return torch.cat([kernel, torch.ones(len(points), 1), points], dim=1)

    n = len(lattice)
    constraints = torch.cat([torch.ones(n, 1), lattice], dim=1).T
    return (
        lattice,
        torch.cat([rows(lattice), F.pad(constraints, (0, 3))]),
        rows(start(h, w, legacy)),
    )


def start(h: int, w: int, corners: bool) -> Tensor:
    """Sampling points (hw, 2) of the identity; corners: the authors' grid, stretched to +-1."""
    return F.affine_grid(torch.eye(2, 3)[None], [1, 1, h, w], align_corners=corners).view(-1, 2)


def morpho(images: Tensor, parameters: Tensor, size: int, legacy: bool) -> Tensor:
    b, c, h, w = images.shape
    logits = torch.full((size**2,), -5.0)
    logits[size**2 // 2] = 5.0
    window = torch.sigmoid(logits + parameters[:, 1:])
    if not legacy:
        shifted = window - torch.sigmoid(torch.tensor(-5.0))
        window = shifted + (shifted.clamp(min=1e-8) - shifted).detach()  # clamp without gradient
    patches = F.unfold(images.flatten(0, 1)[:, None], size, padding=size // 2)
    patches = patches.view(b, c, size**2, h * w)
    weights = (parameters[:, :1, None, None] * patches).exp() * window[:, None, :, None]
    return ((weights * patches).sum(2) / weights.sum(2)).view(b, c, h, w)
