"""A training at one moment: networks, optimisers, assignments, memory; saved and resumed."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common import UserError, malloc_tuning
from common.hdf5 import compare_shapes
from common.run import Checkpoint, Run
from deepcluster_torch import config, devices, heads, model, views

log = logging.getLogger("deepcluster_torch.state")

LARGE = 100_000  # images from which on v1 is the default: a memory bank goes stale in long epochs
FEW = 10_000  # images below which a given trunk is taken as it is
N_HEADS = 3


@dataclass
class State:
    """All that a checkpoint holds."""

    mode: str  # v1, v2 or frozen
    net: nn.ModuleDict  # trunk, and head (v1) or projection and prototypes (v2)
    optimizers: dict[str, torch.optim.Optimizer]  # body, and in v1 head
    assignments: Tensor  # (h, n) int64, the pseudo-labels of each head; -1 before the first
    memory: Tensor  # (v, n, d) of the crops of each image: embeddings in v2, features in one pass
    losses: Tensor  # (2,) of this epoch: summed over its images, and how many these are
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0
    best_loss: float | None = None  # of an epoch; for the plateau
    n_stale: int = 0  # epochs since then
    n_falls: int = 0  # how often the rate fell
    # not in a checkpoint: seconds of each stage, and whether a collapse was warned of
    seconds: dict[str, float] = field(default_factory=dict)
    has_warned: bool = False

    @property
    def trunk(self) -> model.Trunk:
        return self.net["trunk"]

    @property
    def device(self) -> torch.device:
        return self.assignments.device

    def chance(self, cfg: config.Training, in_step: bool = False) -> torch.Generator:
        """Of this epoch, or of this step, by its number alone: a resumed run goes on with it."""
        number = 2 * self.step + 1 if in_step else 2 * self.epoch
        return torch.Generator().manual_seed(cfg.seed * 1_000_003 + number)

    def descend(self, loss: Tensor) -> None:
        """One step of every optimiser down the gradient of the loss."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()

    def count_seconds(self, **stages: float) -> None:
        for name, seconds in stages.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def decide(cfg: config.Model, n: int) -> tuple[str, str]:
    """The mode for n images, and why, in words. Raises UserError for frozen without a trunk."""
    given = cfg.weights is not None or cfg.pretrained
    if cfg.mode == "frozen" and not given:
        raise UserError(
            "model.mode frozen needs a trunk that has learned: give model.weights FILE, or "
            "model.pretrained true for what timm has"
        )
    if cfg.mode != "auto":
        return cfg.mode, "as model.mode says"
    if given and n < FEW:
        return "frozen", f"a trunk is given and {n:,} images are fewer than {FEW:,}"
    if n < LARGE:
        return "v2", f"{n:,} images are fewer than {LARGE:,}"
    return "v1", f"{n:,} images are {LARGE:,} or more"


def head_sizes(cfg: config.Model, n: int) -> tuple[int, ...]:
    """Prototypes of each head of v2 on n images; by default ten times as many as clusters."""
    if cfg.heads:
        return cfg.heads
    return (max(cfg.n_clusters, 2, min(10 * cfg.n_clusters, n // 10)),) * N_HEADS


def begin(
    cfg: config.Config,
    mode: str,
    n: int,
    shape: tuple[int, int, int],
    device: torch.device,
    is_given: bool = True,
) -> State:
    """The state before the first step on n images of `shape` (h, w, c).

    is_given: whether to load the trunk that the config gives; a checkpoint has its own. Raises
    UserError for too few images, and for a trunk that cannot be had.
    """
    if n < 2:
        raise UserError(f"there is only {n} image: clustering needs two")
    largest = max(head_sizes(cfg.model, n), default=0) if mode == "v2" else 0
    for name, k in (("n_clusters", cfg.model.n_clusters), ("heads", largest)):
        if k > n:
            raise UserError(f"model.{name} is {k}, but there are only {n} images")
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    parts: dict[str, nn.Module] = {"trunk": build_trunk(cfg.model, shape, is_given)}
    n_features = parts["trunk"].n_features
    n_heads, bank = 1, torch.empty(0)
    if mode == "v1":
        parts["head"] = heads.Head(n_features, cfg.model.n_clusters)
        if cfg.training.one_pass:
            bank = torch.zeros(1, n, n_features)
    elif mode == "v2":
        sizes = head_sizes(cfg.model, n)
        parts["projection"] = heads.Projection(
            n_features, cfg.model.projection, cfg.model.embedding
        )
        parts["prototypes"] = heads.Prototypes(cfg.model.embedding, sizes)
        n_heads = len(sizes)
        bank = torch.zeros(cfg.training.n_crops, n, cfg.model.embedding)
    net = devices.lay_out(nn.ModuleDict(parts).to(device))
    state = State(
        mode,
        net,
        {},
        assignments=torch.full((n_heads, n), -1, device=device),
        memory=bank.to(device),
        losses=torch.zeros(2, dtype=torch.float64, device=device),
    )
    if mode != "frozen":
        state.optimizers["body"] = body_optimizer(cfg.training, net)
    if mode == "v1":
        state.optimizers["head"] = head_optimizer(cfg.training, net["head"])
    return state


def build_trunk(
    cfg: config.Model, shape: tuple[int, int, int], is_given: bool = True
) -> model.Trunk:
    """The trunk for images of `shape` (h, w, c), with the weights that it starts from, if given."""
    side = views.side(cfg, *shape[:2])
    trunk = model.build(
        cfg.arch,
        (shape[2], side, side),
        sobel=cfg.sobel,
        width=cfg.width,
        n_blocks=cfg.n_blocks,
        n_halvings=cfg.n_halvings,
        n_hidden=cfg.n_hidden,
        pretrained=cfg.pretrained and is_given,
    )
    if cfg.weights and is_given:
        model.load(trunk, Path(cfg.weights))
    return trunk


def body_optimizer(cfg: config.Training, net: nn.ModuleDict) -> torch.optim.Optimizer:
    parts = (net[name] for name in ("trunk", "projection") if name in net)
    parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
    return _optimizer(cfg.optimizer, parameters, cfg.lr, cfg.momentum, cfg.weight_decay)


def head_optimizer(cfg: config.Training, head: nn.Module) -> torch.optim.Optimizer:
    rate = cfg.head_lr or cfg.lr
    parameters = list(head.parameters())
    return _optimizer(cfg.head_optimizer, parameters, rate, cfg.head_momentum, cfg.weight_decay)


def _optimizer(
    name: str, parameters: list[nn.Parameter], lr: float, momentum: float, decay: float
) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=decay, fused=True)
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=decay, fused=True)


# ---- checkpoints


def save(run: Run, state: State, readout: dict[str, Tensor] | None = None) -> None:
    """Writes a checkpoint; raises UserError, and leaves the one before, if a weight is NaN.

    readout: what the clusters at the end are, in a file of its own.
    """
    tensors = {name: getattr(state, name) for name in ("assignments", "memory", "losses")}
    for part, optimizer in state.optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{part}.{i}.{name}": v for name, v in moments.items() if v is not None}
    weights = state.net.state_dict()
    for name, value in weights.items():
        if not value.isfinite().all():
            raise UserError(f"{name} became NaN or infinite at step {state.step}")
    files = {"model": weights, "state": tensors} | ({"clusters": readout} if readout else {})
    run.checkpoint(
        state.step,
        {
            f"{name}.safetensors": lambda path, of=of: save_file(
                {key: value.contiguous() for key, value in of.items()}, path
            )
            for name, of in files.items()
        },
        mode=state.mode,
        **{name: getattr(state, name) for name in PROGRESS},
        n_labels=len(weights["head.weight"]) if "head.weight" in weights else None,
    )


PROGRESS = ("epoch", "batch", "best_loss", "n_stale", "n_falls")


def resume(cfg: config.Training, run: Run, state: State) -> None:
    """Goes on from the latest checkpoint of the run, if there is one, as if never stopped."""
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        run.rewind()
        return
    load_net(cfg, state, checkpoint)
    path = checkpoint.path / "state.safetensors"
    saved, names = read(path), ("assignments", "memory", "losses")
    own = {name: saved.pop(name) for name in names if name in saved}
    fill({name: getattr(state, name) for name in names}, own, path)
    for part, optimizer in state.optimizers.items():
        names = [name for name in saved if name.startswith(f"{part}.")]
        _load_moments(optimizer, {name.partition(".")[2]: saved[name] for name in names})
    for name in PROGRESS:
        setattr(state, name, checkpoint.progress[name])
    state.step = checkpoint.step
    run.rewind(state.step)


def load_net(cfg: config.Training, state: State, checkpoint: Checkpoint) -> None:
    """Fills the network; raises UserError for a checkpoint of another one."""
    n_labels = checkpoint.progress["n_labels"]
    if n_labels and "head" in state.net:
        new_head(cfg, state, n_labels)
    path = checkpoint.path / "model.safetensors"
    fill(state.net.state_dict(), read(path), path)


def new_head(cfg: config.Training, state: State, n_labels: int) -> None:
    """A head that knows nothing, for so many labels, and its optimiser (paper, section 4)."""
    head = state.net["head"]
    if head.n_clusters != n_labels:  # PIC finds another number every time
        head = heads.Head(state.trunk.n_features, n_labels).to(state.device)
        state.net["head"] = head
    head.reset(state.chance(cfg))
    state.optimizers["head"] = head_optimizer(cfg, head)


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Tensor]) -> None:
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        i, name = key.split(".")
        if value.ndim:  # a fused optimiser reads raw memory: it must lie as the parameter does
            value = torch.empty_like(parameters[int(i)]).copy_(value)
        moments.setdefault(int(i), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


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
