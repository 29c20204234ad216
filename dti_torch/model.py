"""Prototypes in pixel space, each with its own predictors of how to move to meet an image.

Monnier et al. 2020. The loss of an image only depends on the prototypes that win it. So all
prototypes are moved without a gradient, the winners are picked, and the winners alone are moved
again with one. For K-means that is exact: the other distances have no part in the loss. For the
GMM a pair counts from a responsibility of 1e-6 on.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from common.hdf5 import compare_shapes
from dti_torch import config, encoder, loss, transformer

MIN_RESPONSIBILITY = 1e-6
LARGEST = 1e6  # parameter that a warp is tried with
CHUNK = 4_000_000  # values of moved prototypes held at once: memory does not grow with their number


def build(cfg: config.Model, prototypes: Tensor) -> "DTI":
    """The untrained model that starts from prototypes (k, c, h, w) in [0, 1]."""
    return DTI(cfg, prototypes)


def load(net: "DTI", path: Path) -> None:
    """Loads the weights of a checkpoint; raises UserError as `read` and `fill`."""
    fill(net.state_dict(), read(path), path)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's file; raises UserError if it is no such file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no readable checkpoint: {error}") from None


def fill(target: dict[str, Tensor], saved: dict[str, Tensor], path: Path) -> None:
    """Copies the tensors of `path`; raises UserError with the first difference in shape."""
    compare_shapes(path, saved, target)
    for name, tensor in target.items():
        tensor.copy_(saved[name])


def encoder_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What the encoder computes in; "auto" is bfloat16 where the processor has it, else float32."""
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities()
        fast = known.get("avx512_bf16", False) or known.get("amx_bf16", False)
    return torch.bfloat16 if fast else torch.float32


class DTI(nn.Module):
    def __init__(self, cfg: config.Model, prototypes: Tensor):
        super().__init__()
        n_prototypes, *shape = prototypes.shape
        self.n_active = 1  # transformations that are on; the curriculum raises it
        self.min_responsibility = MIN_RESPONSIBILITY
        self.encoder_dtype = torch.float32
        self.prototypes = nn.Parameter(prototypes.clone())
        self.is_mixture = cfg.name == "dtigmm"
        if self.is_mixture:
            self.sigmas = nn.Parameter(torch.full_like(prototypes, cfg.sigma_init))
            self.mixing_logits = nn.Parameter(torch.ones(n_prototypes))
            self.var_min = cfg.var_min
        self.encoder = encoder.build(cfg.encoder, tuple(shape)).to(
            memory_format=torch.channels_last
        )
        with torch.no_grad():
            n_features = self.encoder.eval()(torch.zeros(1, *shape)).shape[1]
        self.train()
        self.transformations = transformer.build(cfg, tuple(shape))
        self.regressors = nn.ModuleDict(
            {
                str(i): transformer.Regressors(n_prototypes, n_features, t.n_parameters)
                for i, t in enumerate(self.transformations)
                if t.n_parameters
            }
        )
        weights = torch.ones(shape[1:])
        if cfg.gaussian_weights_std:
            weights = loss.gaussian_pixel_weights(*shape[1:], cfg.gaussian_weights_std)
        self.register_buffer("pixel_weights", weights, persistent=False)

    def predict_parameters(self, images: Tensor) -> list[Tensor]:
        """images (b, c, h, w) -> for each active transformation (k, b, p).

        While only transformations without parameters are active, the encoder does not run. Raises
        UserError in place of NaN, on the CPU.
        """
        active = [str(i) for i in range(self.n_active)]
        nothing = images.new_zeros(len(self.prototypes), len(images), 0)
        if not any(i in self.regressors for i in active):
            return [nothing for _ in active]
        with torch.autocast(
            images.device.type, self.encoder_dtype, self.encoder_dtype != torch.float32
        ):
            features = self.encoder(images.contiguous(memory_format=torch.channels_last))
        features = features.to(images.dtype)
        parameters = [
            self.regressors[i](features) if i in self.regressors else nothing for i in active
        ]
        # on the CPU a coordinate that is NaN makes grid_sample crash the process
        values = [p.detach().abs() for p in parameters]
        if images.device.type == "cpu" and not all((v < LARGEST).all() for v in values):
            raise UserError("predicted transformations are NaN or infinite: lower training.lr")
        return parameters

    def move(self, prototypes: Tensor, parameters: list[Tensor]) -> Tensor:
        """prototypes (n, 1, c, h, w), active parameters (n, m, p) -> (n, m or 1, c, h, w)"""
        for transformation, values in zip(self.transformations, parameters, strict=False):
            prototypes = transformation(prototypes, values)
        return prototypes

    def move_sigmas(self, sigmas: Tensor, parameters: list[Tensor]) -> Tensor:
        """As `move`, through the spatial transformations only: a spread has no colour."""
        for transformation, values in zip(self.transformations, parameters, strict=False):
            if transformation.spatial:
                sigmas = transformation(sigmas, values)
        return sigmas

    def pair_distances(self, images: Tensor, prototype: Tensor, parameters: list[Tensor]) -> Tensor:
        """Images (..., c, h, w) to prototypes (n,) moved by parameters (n, m, p) -> (n, m)."""
        moved = self.move(_rows(self.prototypes, prototype)[:, None], parameters)
        if not self.is_mixture:
            return loss.prototype_distances(images, moved, self.pixel_weights)
        sigmas = self.move_sigmas(_rows(self.sigmas, prototype)[:, None], parameters)
        return loss.negative_log_likelihood(
            images, moved, self.variances(sigmas), self.pixel_weights
        )

    def variances(self, sigmas: Tensor) -> Tensor:
        return sigmas.square() + self.var_min

    @torch.no_grad()
    def all_distances(self, images: Tensor, parameters: list[Tensor]) -> Tensor:
        """Distances of every image to every prototype, without a gradient -> (b, k)."""
        n_at_once = max(1, CHUNK // images.numel())
        chunks = torch.arange(len(self.prototypes), device=images.device).split(n_at_once)
        rows = [
            self.pair_distances(images, chunk, [p[chunk] for p in parameters]) for chunk in chunks
        ]
        return torch.cat(rows).T

    def forward(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> distances (b, k).

        Mean squared error; for the GMM -log of mixing weight times likelihood, in nats.
        """
        return self.scores(images, self.predict_parameters(images))

    def scores(self, images: Tensor, parameters: list[Tensor]) -> Tensor:
        """What `forward` returns, given the predicted parameters."""
        distances = self.all_distances(images, parameters)
        return distances - self.mixing_logits.log_softmax(0) if self.is_mixture else distances

    @torch.no_grad()
    def moved(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> every prototype moved to meet every image (b, k, c, h, w)"""
        moved = self.move(self.prototypes[:, None], self.predict_parameters(images))
        return moved.expand(-1, len(images), -1, -1, -1).transpose(0, 1)

    @torch.no_grad()
    def meet(self, prototype: Tensor, parameters: list[Tensor]) -> Tensor:
        """Prototypes (b,), each moved to meet its image by the parameters -> (b, c, h, w)"""
        image = torch.arange(len(prototype), device=prototype.device)
        chosen = self.prototypes[prototype][:, None]
        return self.move(chosen, _of_pairs(image, prototype, parameters))[:, 0]

    @torch.no_grad()
    def align(self, images: Tensor, prototype: Tensor, parameters: list[Tensor]) -> Tensor:
        """Images (b, c, h, w) moved back to their prototypes (b,): the inverse of `meet`."""
        image = torch.arange(len(images), device=images.device)
        chosen, back = _of_pairs(image, prototype, parameters), images[:, None]
        for transformation, values in reversed(
            list(zip(self.transformations, chosen, strict=False))
        ):
            back = transformation.inverse(back, values)
        return back[:, 0]

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (b, c, h, w) -> the loss, a scalar with a gradient, and all distances (b, k)."""
        parameters = self.predict_parameters(images)
        distances = self.all_distances(images, [p.detach() for p in parameters])
        winners = distances.argmin(1)
        if not self.is_mixture:
            image, prototype = torch.arange(len(images), device=images.device), winners
        else:
            gammas = loss.responsibilities(distances, self.mixing_logits.detach())
            negligible = gammas <= self.min_responsibility  # what is NaN is not: the loss shows it
            image, prototype = torch.nonzero(~negligible, as_tuple=True)
        pairs = self.pair_distances(
            images[image][:, None], prototype, _of_pairs(image, prototype, parameters)
        )[:, 0]
        if not self.is_mixture:
            return pairs.mean(), distances
        expected = (gammas[image, prototype] * pairs).sum() / len(images)
        return expected - (gammas @ self.mixing_logits.log_softmax(0)).mean(), distances


def _of_pairs(image: Tensor, prototype: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Of parameters (k, b, p) those of pairs of an image and a prototype (n,) -> (n, 1, p)."""
    return [p[prototype, image][:, None] for p in parameters]


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values[index], with a gradient that is summed in the same order every time."""
    return F.embedding(index, values.flatten(1)).unflatten(1, values.shape[1:])
