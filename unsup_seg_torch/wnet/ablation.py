"""Scores what each part of the W-Net pipeline adds on BSDS500, as rows of results.csv.

python -m unsup_seg_torch.wnet.ablation RUN [--split val] [--methods wnet_crf ...] >> results.csv

Methods: the network's labels, refined by the CRF, merged to a hierarchy; and the same merging and
spectral clustering without a network, which need no RUN. stdout gets the rows, stderr the scores
in short.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import UserError, bsds, images
from common.bsds import baselines, folder_scores, label_maps
from common.config import load_config
from common.datasets import formats, segmentations
from common.run import Run
from unsup_seg_torch.postprocess import spectral
from unsup_seg_torch.wnet import config, regions

SPECTRAL_SIDE = 120  # longer side in pixels of what is cut spectrally

# Each method takes an image uint8 (h, w, 3), probabilities (k, h, w) or None, and a config; it
# returns label maps (h, w), fine to coarse.


def labels(image: np.ndarray, maps: np.ndarray, model_cfg: config.Model) -> list[np.ndarray]:
    """The most probable label of each pixel."""
    return [maps.argmax(0)]


def labels_crf(image: np.ndarray, maps: np.ndarray, model_cfg: config.Model) -> list[np.ndarray]:
    """The same after the CRF."""
    return labels(image, _crf(image, maps, model_cfg), model_cfg)


def components_crf(
    image: np.ndarray, maps: np.ndarray, model_cfg: config.Model
) -> list[np.ndarray]:
    """Connected components of the labels after the CRF."""
    return [bsds.components(each, 4) for each in labels_crf(image, maps, model_cfg)]


def labels_merged(image: np.ndarray, maps: np.ndarray, model_cfg: config.Model) -> np.ndarray:
    """Those components merged, cut at each of the heights."""
    return _cuts_of_hierarchy("labels", image, _crf(image, maps, model_cfg), model_cfg)


def felzenszwalb_merged(image: np.ndarray, maps: np.ndarray, model_cfg: config.Model) -> np.ndarray:
    """Superpixels merged by colors and the network's probabilities."""
    return _cuts_of_hierarchy("felzenszwalb", image, _crf(image, maps, model_cfg), model_cfg)


def felzenszwalb_by_color(image: np.ndarray, maps: None, model_cfg: config.Model) -> np.ndarray:
    """Superpixels merged by colors alone."""
    uniform = np.ones((1, *image.shape[:2]), np.float32)
    return _cuts_of_hierarchy("felzenszwalb", image, uniform, model_cfg)


def spectral_on_colors(image: np.ndarray, maps: None, model_cfg: config.Model) -> list[np.ndarray]:
    """Normalized cuts of color and position, as many segments as k-means has clusters."""
    return _spectral_cuts(image, baselines.lab(images.shrink(image, SPECTRAL_SIDE)))


def spectral_on_labels(
    image: np.ndarray, maps: np.ndarray, model_cfg: config.Model
) -> list[np.ndarray]:
    """Normalized cuts of color, position and the network's probabilities."""
    small = images.shrink(image, SPECTRAL_SIDE)
    maps = regions.enlarge(maps, small.shape[:2]).transpose(1, 2, 0)
    weighted = regions.PROBABILITIES_WEIGHT * maps
    return _spectral_cuts(image, np.concatenate([baselines.lab(small), weighted], axis=2))


Method = Callable[[np.ndarray, np.ndarray | None, config.Model], list[np.ndarray] | np.ndarray]
TRAINED: dict[str, Method] = {
    "wnet_labels": labels,
    "wnet_crf": labels_crf,
    "wnet_crf_pieces": components_crf,
    "wnet_crf_merged": labels_merged,
    "wnet_felzenszwalb_merged": felzenszwalb_merged,
    "wnet_spectral": spectral_on_labels,
}
UNTRAINED: dict[str, Method] = {
    "smoothed_felzenszwalb_merged": felzenszwalb_by_color,
    "spectral_lab_xy": spectral_on_colors,
}


def main() -> None:
    parser = baselines.parser("unsup_seg_torch.wnet.ablation", __doc__, [*TRAINED, *UNTRAINED])
    about = "run folder, for methods with a network (default: none)"
    parser.add_argument("run", nargs="?", metavar="RUN", help=about)
    args = baselines.parse(parser)
    needing = [name for name in args.methods if name in TRAINED]
    if needing and not args.run:
        untrained = ", ".join(UNTRAINED)
        raise UserError(f"{needing[0]} needs a RUN; methods without a network: {untrained}")
    run = Run.open(Path(args.run)).path if args.run else None
    seed = str(_config(run).training.seed) if run else "-"
    dataset = segmentations.load("bsds500", args.split, args.root)
    for name in args.methods:
        run_of_method = run if name in TRAINED else None
        tasks = [
            Task(name, run_of_method, image, truth, args.boundaries)
            for image, truth in zip(dataset.paths, dataset.ground_truth_paths, strict=True)
        ][: args.limit]
        results = folder_scores.each(score, tasks, args.processes, name)
        counts, seconds = zip(*results, strict=True)
        baselines.write_rows(name, seed if run_of_method else "-", args, list(counts), seconds)


@dataclasses.dataclass(frozen=True)
class Task:
    """One image for one method; run: of the network, None for methods without one."""

    method: str
    run: Path | None
    image: str
    truth: Path
    with_boundaries: bool


def score(task: Task) -> tuple[bsds.ImageCounts, float]:
    """The counts of one image, and the seconds that its segmentation took."""
    truths = label_maps.ground_truths(task.truth)
    with formats.reading(task.truth):
        images.check_same_size(truths.labels[0].shape, task.image)
    image = images.load(task.image)
    probabilities = _probabilities(task.run) if task.run else None
    start = time.perf_counter()
    if probabilities:
        scales = TRAINED[task.method](image, probabilities(image), _config(task.run).model)
    else:
        scales = UNTRAINED[task.method](image, None, config.Model())
    seconds = time.perf_counter() - start
    counts = bsds.per_image_counts(scales, truths.labels, task.with_boundaries, None, truths.edges)
    return counts, seconds


@functools.lru_cache(maxsize=1)
def _probabilities(run: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The network of a run as a function from images to probabilities, once per process."""
    from unsup_seg_torch.wnet import pred  # loads PyTorch, which methods without a network do not

    cfg = _config(run)
    net = pred.load(cfg, Run.open(run))
    return lambda image: pred.probabilities(net, image, cfg)[0]


def _config(run: Path) -> config.Config:
    return load_config(config.Config, __file__, str(run / "config.yml"))


def _crf(image: np.ndarray, maps: np.ndarray, model_cfg: config.Model) -> np.ndarray:
    from unsup_seg_torch.postprocess import crf

    return crf.refine(maps, image, model_cfg.crf_iterations or config.Model().crf_iterations)


def _cuts_of_hierarchy(
    finest: str, image: np.ndarray, maps: np.ndarray, model_cfg: config.Model
) -> np.ndarray:
    chosen = dataclasses.replace(model_cfg, regions=finest)
    return regions.hierarchy(maps, image, chosen).cuts(regions.HEIGHTS)


def _spectral_cuts(image: np.ndarray, features: np.ndarray) -> list[np.ndarray]:
    """Label maps at the size of the image, of features (h, w, d), for every baselines.COUNTS."""
    affinities = spectral.affinities(features)
    vectors = spectral.eigenvectors(affinities, max(baselines.COUNTS))[1]
    label_maps = []
    for k in baselines.COUNTS:
        small = spectral.cluster_vectors(vectors[:, :k]).reshape(features.shape[:2])
        one_hot = np.eye(k, dtype=np.float32)[small].transpose(2, 0, 1)
        label_maps.append(regions.enlarge(one_hot, image.shape[:2]).argmax(0))
    return label_maps


if __name__ == "__main__":
    from common import cli

    cli.main(main)
