"""The training state: networks, optimizers, assignments, memory bank; how a mode is chosen."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from common import UserError, malloc_tuning
from common.pytorch.random import seeded_generator
from deepcluster_torch import config, model
from deepcluster_torch.data.augment import input_side
from deepcluster_torch.model import heads, weights
from deepcluster_torch.modes.larc import LARC

MIN_IMAGES_V1 = 100_000  # v1 is the default from here on: in long epochs a memory bank is outdated
MAX_IMAGES_FROZEN = 10_000  # frozen is the default for a pretrained trunk and fewer images
N_HEADS = 3


@dataclass
class State:
    """Training state saved in checkpoints."""

    mode: str  # v1, v2 or frozen
    net: nn.ModuleDict  # trunk; in v1 also head; in v2 also projection and prototypes
    optimizers: dict[str, torch.optim.Optimizer]  # body (all but the head), and in v1 head
    assignments: Tensor  # (h, n) int64, the pseudo-labels for each head; -1 before the first
    memory: Tensor  # (v, n, d): embeddings of v crops per image (v2), or features (v1, one_pass)
    losses: Tensor  # (2,): sum over the images of this epoch, and their number
    epoch: int = 0
    batch: int = 0  # finished batches of this epoch
    step: int = 0
    best_loss: float | None = None  # lowest loss of an epoch; for the schedule plateau
    n_bad_epochs: int = 0  # since best_loss
    n_lr_drops: int = 0
    # not in checkpoints
    seconds: dict[str, float] = field(default_factory=dict)  # spent on each part of the training
    warned_of_collapse: bool = False

    @property
    def trunk(self) -> model.Trunk:
        return self.net["trunk"]

    @property
    def device(self) -> torch.device:
        return self.assignments.device

    def epoch_generator(self, seed: int) -> torch.Generator:
        """Depends on the seed and the number of the epoch alone, so resuming is exact."""
        return seeded_generator(seed, 2 * self.epoch)

    def step_generator(self, seed: int) -> torch.Generator:
        """As `epoch_generator`, for the step."""
        return seeded_generator(seed, 2 * self.step + 1)

    def optimizer_step(self, loss: Tensor) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()

    def add_seconds(self, **seconds: float) -> None:
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value


def choose_mode(model_cfg: config.Model, n: int) -> tuple[str, str]:
    """The mode for n images, and the reason; raises UserError for frozen without a trunk."""
    is_pretrained = model_cfg.weights is not None or model_cfg.pretrained
    if model_cfg.mode == "frozen" and not is_pretrained:
        raise UserError(
            "model.mode frozen needs a pretrained trunk: set model.weights to a file, or "
            "model.pretrained true for timm's weights"
        )
    if model_cfg.mode != "auto":
        return model_cfg.mode, "set by model.mode"
    if is_pretrained and n < MAX_IMAGES_FROZEN:
        return "frozen", f"pretrained trunk and {n:,} images, fewer than {MAX_IMAGES_FROZEN:,}"
    if n < MIN_IMAGES_V1:
        return "v2", f"{n:,} images, fewer than {MIN_IMAGES_V1:,}"
    return "v1", f"{n:,} images, {MIN_IMAGES_V1:,} or more"


def head_sizes(model_cfg: config.Model, n: int) -> tuple[int, ...]:
    """Prototypes of each head of v2 for n images; by default ten times n_clusters."""
    if model_cfg.heads:
        return model_cfg.heads
    return (max(model_cfg.n_clusters, 2, min(10 * model_cfg.n_clusters, n // 10)),) * N_HEADS


def initial_state(
    cfg: config.Config,
    mode: str,
    n: int,
    shape: tuple[int, int, int],
    device: torch.device,
    load_weights: bool = True,
) -> State:
    """The state before the first step on n images of `shape` (h, w, c).

    load_weights: whether to load the config's pretrained trunk; False if a checkpoint follows.
    Raises UserError for too few images, and for a trunk that cannot be loaded.
    """
    if n < 2:
        raise UserError(f"there is only {n} image: clustering needs two")
    largest = max(head_sizes(cfg.model, n), default=0) if mode == "v2" else 0
    for name, k in (("n_clusters", cfg.model.n_clusters), ("heads", largest)):
        if k > n:
            raise UserError(f"model.{name} is {k}, but there are only {n} images")
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    trunk = build_trunk(cfg.model, shape, load_weights)
    modules: dict[str, nn.Module] = {"trunk": trunk}
    n_heads, memory = 1, torch.empty(0)
    if mode == "v1":
        modules["head"] = heads.Head(trunk.n_features, cfg.model.n_clusters)
        if cfg.training.one_pass:
            memory = torch.zeros(1, n, trunk.n_features)
    elif mode == "v2":
        sizes = head_sizes(cfg.model, n)
        d = cfg.model.embedding
        modules["projection"] = heads.Projection(trunk.n_features, cfg.model.projection, d)
        modules["prototypes"] = heads.Prototypes(d, sizes)
        n_heads = len(sizes)
        memory = torch.zeros(cfg.training.n_crops, n, d)
    net = to_channels_last(nn.ModuleDict(modules).to(device))
    state = State(
        mode,
        net,
        {},
        assignments=torch.full((n_heads, n), -1, device=device),
        memory=memory.to(device),
        losses=torch.zeros(2, dtype=torch.float64, device=device),
    )
    if mode != "frozen":
        state.optimizers["body"] = body_optimizer(cfg.training, net)
    if mode == "v1":
        state.optimizers["head"] = head_optimizer(cfg.training, net["head"])
    return state


def build_trunk(
    model_cfg: config.Model, shape: tuple[int, int, int], load_weights: bool = True
) -> model.Trunk:
    """The trunk for images of `shape` (h, w, c), with the config's pretrained weights if any."""
    side = input_side(model_cfg, *shape[:2])
    trunk = model.build(
        model_cfg.arch,
        (shape[2], side, side),
        sobel=model_cfg.sobel,
        width=model_cfg.width,
        n_blocks=model_cfg.n_blocks,
        stem_stride=model_cfg.stem_stride,
        n_hidden=model_cfg.n_hidden,
        pretrained=model_cfg.pretrained and load_weights,
    )
    if model_cfg.weights and load_weights:
        weights.load(trunk, Path(model_cfg.weights))
    return trunk


def to_channels_last(net: nn.Module) -> nn.Module:
    """Moves the weights of convolutions to the faster channels-last layout if it is safe.

    With fewer channels than a vector register holds, their gradients on the CPU are written out of
    bounds (PyTorch 2.14.1 aborts with 4 channels).
    """
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    if all(each.out_channels % 8 == 0 for each in convolutions):
        for each in convolutions:
            each.to(memory_format=torch.channels_last)
    return net


def new_head(training: config.Training, state: State, n_labels: int) -> None:
    """Replaces the head by an untrained one and resets its optimizer (paper, section 4)."""
    head = state.net["head"]
    if head.n_clusters != n_labels:  # PIC finds another number every time
        head = heads.Head(state.trunk.n_features, n_labels).to(state.device)
        state.net["head"] = head
    head.reset(state.epoch_generator(training.seed))
    state.optimizers["head"] = head_optimizer(training, head)


def body_optimizer(training: config.Training, net: nn.ModuleDict) -> torch.optim.Optimizer:
    parts = (net[name] for name in ("trunk", "projection") if name in net)
    parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
    return _optimizer(
        training.optimizer, parameters, training.lr, training.momentum, training.weight_decay
    )


def head_optimizer(training: config.Training, head: nn.Module) -> torch.optim.Optimizer:
    lr = training.head_lr or training.lr
    return _optimizer(
        training.head_optimizer,
        list(head.parameters()),
        lr,
        training.head_momentum,
        training.weight_decay,
    )


def _optimizer(
    name: str, parameters: list[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    if name == "larc":
        return LARC(parameters, lr, momentum, weight_decay)
    if name == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=weight_decay, fused=True)
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, fused=True)
