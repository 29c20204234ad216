"""Assigns images to clusters: python deepcluster_torch/pred.py RUN [--input FILE_OR_FOLDER]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import logging

from torch import nn

from common import cli, datasets
from common.pytorch.device import select_device
from common.run import Run
from deepcluster_torch import config
from deepcluster_torch.cluster import final
from deepcluster_torch.cluster.final import FinalClustering
from deepcluster_torch.data import loading
from deepcluster_torch.evaluation import neighbors, outputs, overview
from deepcluster_torch.model import features
from deepcluster_torch.modes import checkpoints
from deepcluster_torch.modes.state import initial_state

log = logging.getLogger("deepcluster_torch.pred")


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Assign images to the clusters of a run: the training images, or new ones.",
        **cli.NEW_IMAGES,
        folders={
            "choices": ["link", "copy"],
            "help": "also write OUT/folders with one folder per cluster, of links to the images "
            "or of copies; default: neither",
        },
        neighbors={
            "action": "store_true",
            "help": "with --input: also write the training images nearest to each new image; "
            "default: no",
        },
    )
    net, clustering = load(cfg, run)
    held_out, out = None, cli.output_folder(run, args)
    if args.input is None:
        dataset, held_out = training_images(cfg, run)
    else:
        shape = run.meta["image_shape"]
        dataset = loading.load_new(Path(args.input), shape, cfg.dataset.max_bad)

    def assign(dataset: datasets.Images) -> final.Assignments:
        return clustering.assign(features.extract(net, dataset.images, cfg))

    assignments = assign(dataset)
    outputs.write(out, dataset, assignments, clustering.n_groups)
    if args.folders:
        outputs.write_folders(out / "folders", dataset, assignments.clusters, args.folders)
    if args.neighbors and args.input is not None:
        known, _ = training_images(cfg, run)
        neighbors.write_new(out, dataset, assignments.embeddings, known, assign(known).embeddings)
    if out == run.path:
        overview.write(run, net, cfg, dataset, held_out, assignments, clustering.n_groups)
        if held_out is not None:
            outputs.write_held_out(out, held_out, assign(held_out))
    log.info(
        "%d images in %d clusters: %s",
        len(dataset.paths), clustering.n_groups, out / "predictions.csv",
    )  # fmt: skip


def training_images(cfg: config.Config, run: Run) -> tuple[datasets.Images, datasets.Images | None]:
    """The images of the training and those held out; raises UserError if they changed."""
    dataset, held_out = loading.load(cfg.dataset)
    run.check_dataset(dataset.checksum, cli.PASS_AS_INPUT)
    return dataset, held_out


def load(cfg: config.Config, run: Run) -> tuple[nn.ModuleDict, FinalClustering]:
    """The network of the run's latest checkpoint and the final clustering.

    A run that was stopped has no final clustering yet: it is computed but not saved. Raises
    UserError without a checkpoint, and for one of another config.
    """
    checkpoint = run.require_checkpoint()
    mode, n, shape = (run.meta[name] for name in ("mode", "n_images", "image_shape"))
    device = select_device()
    state = initial_state(cfg, mode, n, tuple(shape), device, load_weights=False)
    checkpoints.load_net(cfg.training, state, checkpoint)
    state.net.eval()
    path = checkpoint.path / "clusters.safetensors"
    if path.exists():
        return state.net, final.load(path, device, cfg)
    log.info("the run is not finished: clustering the features of its latest checkpoint")
    dataset, _ = training_images(cfg, run)
    return state.net, final.fit(features.extract(state.net, dataset.images, cfg), cfg)


if __name__ == "__main__":
    cli.main(main)
