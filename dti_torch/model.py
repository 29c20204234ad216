"""Prototypes in pixel space, each with networks that predict how to transform it to match an image.

Monnier et al. 2020. The loss of an image depends on its winning prototypes only. So all prototypes
are transformed without gradients to find the winners, and the winners once more with gradients. For
K-means this is exact. For the GMM, pairs with a responsibility of at most 1e-6 are left out.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from common.run import Checkpoint
from dti_torch import config, encoder, loss, transformer

MIN_RESPONSIBILITY = 1e-6
MAX_PARAMETER = 1e6  # of a transformation; larger ones are an error
MAX_VALUES = 4_000_000  # of transformed prototypes at a time: bounds the memory for any k


def build(cfg: config.Model, prototypes: Tensor) -> "DTI":
    """The untrained model that starts from prototypes (k, c, h, w) in [0, 1]."""
    return DTI(cfg, prototypes)


def check_number(checkpoint: Checkpoint, cfg: config.Model) -> None:
    """Raises UserError for a checkpoint with another `n_prototypes`: shapes include the surplus."""
    n = checkpoint.progress.get("n_prototypes", cfg.n_prototypes)
    if n != cfg.n_prototypes:
        raise UserError(
            f"{checkpoint.path} is of another model: n_prototypes is {n}, the config expects "
            f"{cfg.n_prototypes}"
        )


class DTI(nn.Module):
    def __init__(self, cfg: config.Model, prototypes: Tensor):
        super().__init__()
        n_prototypes, *shape = prototypes.shape
        self.n_active = 1  # number of active transformations; the curriculum raises it
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
        """images (b, c, h, w) -> parameters (k, b, p) of each active transformation.

        The encoder does not run while no active transformation has parameters. On the CPU, raises
        UserError for NaN and infinite parameters.
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
        # On the CPU, grid_sample crashes the process at NaN coordinates.
        values = [p.detach().abs() for p in parameters]
        if images.device.type == "cpu" and not all((v < MAX_PARAMETER).all() for v in values):
            raise UserError("predicted transformations are NaN or infinite: lower training.lr")
        return parameters

    def apply_transformations(self, prototypes: Tensor, parameters: list[Tensor]) -> Tensor:
        """prototypes (n, 1, c, h, w), active parameters (n, m, p) -> (n, m or 1, c, h, w)"""
        for transformation, values in zip(self.transformations, parameters, strict=False):
            prototypes = transformation(prototypes, values)
        return prototypes

    def transform_sigmas(self, sigmas: Tensor, parameters: list[Tensor]) -> Tensor:
        """As `apply_transformations`, spatial ones only: they do not depend on pixel values."""
        for transformation, values in zip(self.transformations, parameters, strict=False):
            if transformation.spatial:
                sigmas = transformation(sigmas, values)
        return sigmas

    def pair_distances(self, images: Tensor, prototype: Tensor, parameters: list[Tensor]) -> Tensor:
        """Distances (n, m) of images (..., c, h, w) to prototypes with indices (n,).

        parameters (n, m, p): of the active transformations, applied to the prototypes.
        """
        rows = _rows(self.prototypes, prototype)[:, None]
        warped = self.apply_transformations(rows, parameters)
        if not self.is_mixture:
            return loss.prototype_distances(images, warped, self.pixel_weights)
        sigmas = self.transform_sigmas(_rows(self.sigmas, prototype)[:, None], parameters)
        variances = self.variances(sigmas)
        return loss.negative_log_likelihood(images, warped, variances, self.pixel_weights)

    def variances(self, sigmas: Tensor) -> Tensor:
        return sigmas.square() + self.var_min

    @torch.no_grad()
    def all_distances(self, images: Tensor, parameters: list[Tensor]) -> Tensor:
        """Distances (b, k) of every image to every prototype, without gradients."""
        chunk_size = max(1, MAX_VALUES // images.numel())
        chunks = torch.arange(len(self.prototypes), device=images.device).split(chunk_size)
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
        """As `forward`, from predicted parameters."""
        distances = self.all_distances(images, parameters)
        return distances - self.mixing_logits.log_softmax(0) if self.is_mixture else distances

    @torch.no_grad()
    def warped_prototypes(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> all prototypes, transformed to match each image (b, k, c, h, w)"""
        parameters = self.predict_parameters(images)
        warped = self.apply_transformations(self.prototypes[:, None], parameters)
        return warped.expand(-1, len(images), -1, -1, -1).transpose(0, 1)

    @torch.no_grad()
    def warp_to_images(self, prototype: Tensor, parameters: list[Tensor]) -> Tensor:
        """Prototypes with indices (b,), each transformed to match its image -> (b, c, h, w)"""
        image = torch.arange(len(prototype), device=prototype.device)
        chosen = self.prototypes[prototype][:, None]
        return self.apply_transformations(chosen, _of_pairs(image, prototype, parameters))[:, 0]

    @torch.no_grad()
    def align(self, images: Tensor, prototype: Tensor, parameters: list[Tensor]) -> Tensor:
        """Images (b, c, h, w) aligned to prototypes with indices (b,): inverts `warp_to_images`."""
        image = torch.arange(len(images), device=images.device)
        pairs = zip(self.transformations, _of_pairs(image, prototype, parameters), strict=False)
        aligned = images[:, None]
        for transformation, values in reversed(list(pairs)):
            aligned = transformation.inverse(aligned, values)
        return aligned[:, 0]

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (b, c, h, w) -> the scalar loss with gradients, and all distances (b, k)."""
        parameters = self.predict_parameters(images)
        distances = self.all_distances(images, [p.detach() for p in parameters])
        winners = distances.argmin(1)
        if not self.is_mixture:
            image, prototype = torch.arange(len(images), device=images.device), winners
        else:
            gammas = loss.responsibilities(distances, self.mixing_logits.detach())
            negligible = gammas <= self.min_responsibility  # False for NaN, which then shows
            image, prototype = torch.nonzero(~negligible, as_tuple=True)
        pairs = self.pair_distances(
            images[image][:, None], prototype, _of_pairs(image, prototype, parameters)
        )[:, 0]
        if not self.is_mixture:
            return pairs.mean(), distances
        expected = (gammas[image, prototype] * pairs).sum() / len(images)
        return expected - (gammas @ self.mixing_logits.log_softmax(0)).mean(), distances


def _of_pairs(image: Tensor, prototype: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """From parameters (k, b, p) those of pairs of an image and a prototype (n,) -> (n, 1, p)."""
    return [p[prototype, image][:, None] for p in parameters]


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values[index], with a gradient that is summed in a deterministic order."""
    return F.embedding(index, values.flatten(1)).unflatten(1, values.shape[1:])
