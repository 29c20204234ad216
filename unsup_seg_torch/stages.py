"""What each part of the pipeline adds, scored against BSDS500's annotators, as rows of results.csv.

python -m unsup_seg_torch.stages RUN [--split val] [--methods wnet_crf ...] >> results.csv

The network's labels as they are, refined by the CRF, merged to a hierarchy; the same merging and
spectral cuts without any network, for which there is no RUN. Rows go to stdout, the scores in short
to stderr.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import UserError, bsds, cli, images
from common.bsds import baselines, folder_scores, label_maps
from common.config import load_config
from common.datasets import segmentations
from common.run import Run
from unsup_seg_torch import config, data, regions, spectral

SPECTRAL_SIDE = 120  # pixels: the longer side of what is cut spectrally

# All take an image uint8 (h, w, 3), probabilities (k, h, w) and a config; maps (h, w) come out,
# from fine to coarse.


def labels(image: np.ndarray, maps: np.ndarray, cfg: config.Model) -> list[np.ndarray]:
    """The most probable label of each pixel."""
    return [maps.argmax(0)]


def refined(image: np.ndarray, maps: np.ndarray, cfg: config.Model) -> list[np.ndarray]:
    """The same after the CRF."""
    return labels(image, _crf(image, maps, cfg), cfg)


def pieces(image: np.ndarray, maps: np.ndarray, cfg: config.Model) -> list[np.ndarray]:
    """The connected pieces of those."""
    return [bsds.components(each, 4) for each in refined(image, maps, cfg)]


def merged(image: np.ndarray, maps: np.ndarray, cfg: config.Model) -> np.ndarray:
    """The pieces, joined as far as each of the heights."""
    return _merged("labels", image, _crf(image, maps, cfg), cfg)


def whole(image: np.ndarray, maps: np.ndarray, cfg: config.Model) -> np.ndarray:
    """Felzenszwalb's regions of smoothed colours, joined by colours and probabilities."""
    return _merged("felzenszwalb", image, _crf(image, maps, cfg), cfg)


def untrained(image: np.ndarray, maps: None, cfg: config.Model) -> np.ndarray:
    """The same by colours alone."""
    return _merged("felzenszwalb", image, np.ones((1, *image.shape[:2]), np.float32), cfg)


def colours_cut(image: np.ndarray, maps: None, cfg: config.Model) -> list[np.ndarray]:
    """Normalised cuts of colour and position into the numbers of segments that k-means has."""
    return _cuts(image, baselines.lab(data.reduce(image, SPECTRAL_SIDE)))


def labels_cut(image: np.ndarray, maps: np.ndarray, cfg: config.Model) -> list[np.ndarray]:
    """Normalised cuts of colour, position and probabilities."""
    small = data.reduce(image, SPECTRAL_SIDE)
    maps = regions.enlarge(maps, small.shape[:2]).transpose(1, 2, 0)
    weighted = regions.PROBABILITIES_WEIGHT * maps
    return _cuts(image, np.concatenate([baselines.lab(small), weighted], axis=2))


Method = Callable[[np.ndarray, np.ndarray | None, config.Model], list[np.ndarray] | np.ndarray]
TRAINED: dict[str, Method] = {
    "wnet_labels": labels,
    "wnet_crf": refined,
    "wnet_crf_pieces": pieces,
    "wnet_crf_merged": merged,
    "wnet_felzenszwalb_merged": whole,
    "wnet_spectral": labels_cut,
}
UNTRAINED: dict[str, Method] = {
    "smoothed_felzenszwalb_merged": untrained,
    "spectral_lab_xy": colours_cut,
}


def main() -> None:
    parser = baselines.parser("unsup_seg_torch.stages", __doc__, [*TRAINED, *UNTRAINED])
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder, for methods of a net")
    args = baselines.parse(parser)
    needing = [name for name in args.methods if name in TRAINED]
    if needing and not args.run:
        raise UserError(f"{needing[0]} needs a RUN; without one there are: {', '.join(UNTRAINED)}")
    path = Run.open(Path(args.run)).path if args.run else None
    seed = str(_config(path).training.seed) if path else "-"
    found = segmentations.load("bsds500", args.split, args.root)
    for name in args.methods:
        own = path if name in TRAINED else None
        tasks = [
            Task(name, own, image, truth, args.boundaries)
            for image, truth in zip(found.paths, found.ground_truth_paths, strict=True)
        ][: args.limit]
        answers = folder_scores.each(score, tasks, args.processes, name)
        evidence, seconds = zip(*answers, strict=True)
        baselines.write_rows(name, seed if own else "-", args, list(evidence), seconds)


@dataclasses.dataclass(frozen=True)
class Task:
    """One picture for one method; run: of the net, None for those without."""

    method: str
    run: Path | None
    image: str
    truth: Path
    boundaries: bool


def score(task: Task) -> tuple[bsds.ImageCounts, float]:
    """What one picture brings, and the seconds that its segmentations took."""
    truths = label_maps.ground_truths(task.truth)
    image = images.load(task.image)
    look = _net(task.run) if task.run else None
    began = time.perf_counter()
    if look:
        scales = TRAINED[task.method](image, look(image), _config(task.run).model)
    else:
        scales = UNTRAINED[task.method](image, None, config.Model())
    seconds = time.perf_counter() - began
    return bsds.per_image_counts(
        scales, truths.labels, task.boundaries, None, truths.edges
    ), seconds


@functools.lru_cache(maxsize=1)
def _net(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What gives the probabilities of a picture, once a process."""
    from unsup_seg_torch import pred  # PyTorch only where a net is needed

    cfg = _config(path)
    net = pred.load(cfg, Run.open(path))
    return lambda image: pred.probabilities(net, image, cfg)[0]


def _config(path: Path) -> config.Config:
    return load_config(config.Config, __file__, str(path / "config.yml"))


def _crf(image: np.ndarray, maps: np.ndarray, cfg: config.Model) -> np.ndarray:
    from unsup_seg_torch import crf

    return crf.refine(maps, image, cfg.crf_iterations or config.Model().crf_iterations)


def _merged(name: str, image: np.ndarray, maps: np.ndarray, cfg: config.Model) -> np.ndarray:
    chosen = dataclasses.replace(cfg, regions=name)
    return regions.hierarchy(maps, image, chosen).cuts(regions.HEIGHTS)


def _cuts(image: np.ndarray, features: np.ndarray) -> list[np.ndarray]:
    """Maps as large as the image, of features (h, w, d) at every `baselines.COUNTS`."""
    ties = spectral.affinities(features)
    vectors = spectral.eigenvectors(ties, max(baselines.COUNTS))[1]
    found = []
    for k in baselines.COUNTS:
        small = spectral.of_vectors(vectors[:, :k]).reshape(features.shape[:2])
        smooth = regions.enlarge(
            np.eye(k, dtype=np.float32)[small].transpose(2, 0, 1), image.shape[:2]
        )
        found.append(smooth.argmax(0))
    return found


if __name__ == "__main__":
    cli.main(main)
