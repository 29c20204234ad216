"""DeepCluster: seconds per epoch against a plain port of the original code; k-means and PIC.

The plain port reads every image with Pillow, in batches of 2, once for the features and once for
the training, and caches nothing. Both are timed in turn on a few images and scaled to an epoch of
2,000; --whole times all 2,000.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from common import malloc_tuning
from deepcluster_torch import config, model, train
from deepcluster_torch.cluster.kmeans import kmeans
from deepcluster_torch.cluster.pic import pic
from deepcluster_torch.data import folder_cache
from deepcluster_torch.model.trunk import IMAGENET_MEAN, IMAGENET_STD
from deepcluster_torch.modes.state import initial_state

N_EPOCH, SIZE, N_CLUSTERS = 2000, 128, 10
N_PLAIN, N_OURS = 16, 64
# mode, and the network with the side in pixels that it sees of images of 128
OURS = (
    ("v1", {"arch": "vgg16", "input_size": 128}),
    ("v2", {"arch": "resnet18", "input_size": 128}),
    ("v2", {"arch": "resnet18", "input_size": 64, "stem_stride": 4}),
)
MEAN, STD = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))


# ---- the plain port


class Files(Dataset):
    """Image files, each opened, resized, randomly mirrored and normalized when it is indexed."""

    def __init__(self, paths: list[Path], labels: list[int], is_training: bool):
        self.paths, self.labels, self.is_training = paths, labels, is_training

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = Image.open(self.paths[i]).convert("RGB").resize((SIZE, SIZE))
        if self.is_training and torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (values - MEAN) / STD, self.labels[i]


class PlainDeepCluster:
    """VGG16 with batch norm, Adam for the body, SGD for the top layer, batches of 2."""

    def __init__(self) -> None:
        self.body = model.build("vgg16", (3, SIZE, SIZE)).body
        self.top = nn.Sequential(nn.ReLU(), nn.Linear(4096, N_CLUSTERS))
        self.adam = torch.optim.Adam(self.body.parameters(), 1e-4)

    def features(self, paths: list[Path]) -> np.ndarray:
        self.body.eval()
        loader = DataLoader(Files(paths, [0] * len(paths), False), batch_size=2)
        with torch.no_grad():
            return np.concatenate([self.body(images).numpy() for images, _ in loader])

    def train(self, paths: list[Path], labels: list[int]) -> None:
        self.body.train()
        sgd = torch.optim.SGD(self.top.parameters(), 0.05, weight_decay=1e-5)
        for images, targets in DataLoader(Files(paths, labels, True), batch_size=2, shuffle=True):
            loss = F.cross_entropy(self.top(self.body(images)), targets)
            self.adam.zero_grad()
            sgd.zero_grad()
            loss.backward()
            self.adam.step()
            sgd.step()
            float(loss.detach())


def plain_clustering(features: np.ndarray) -> np.ndarray:
    """Full PCA, whitening, normalization, k-means."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    whitened = PCA(256, whiten=True, svd_solver="full").fit_transform(features)
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    return KMeans(N_CLUSTERS, init="random", n_init=1, max_iter=20).fit_predict(whitened)


# ---- timing


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def write_images(folder: Path, n: int) -> list[Path]:
    """JPEG files of 32 pixels, as of CIFAR-10."""
    random, paths = np.random.default_rng(0), []
    for i in range(n):
        paths.append(folder / f"{i:04d}.jpg")
        Image.fromarray(random.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def our_epoch(images: np.ndarray, mode: str, **options: str | int) -> float:
    """Seconds of the second epoch, which is like all later ones."""
    cfg = config.Config(
        model=config.Model(mode=mode, n_clusters=N_CLUSTERS, **options),
        training=config.Training(batch_size=64, n_epochs=3, lr=0.01, one_pass=mode == "v1"),
    )
    state = initial_state(cfg, mode, len(images), images.shape[1:], torch.device("cpu"))

    def epoch() -> None:
        for _ in train.train_epoch(cfg, state, images):
            pass

    epoch()
    return seconds(epoch)


def plain_epoch(paths: list[Path]) -> tuple[float, float, float]:
    """Seconds of features, clustering and training in an epoch of N_EPOCH images."""
    plain, labels = PlainDeepCluster(), [i % N_CLUSTERS for i in range(len(paths))]
    plain.features(paths[:2])
    features = seconds(lambda: plain.features(paths)) / len(paths) * N_EPOCH
    training = seconds(lambda: plain.train(paths, labels)) / len(paths) * N_EPOCH
    points = np.random.default_rng(0).normal(size=(N_EPOCH, 4096)).astype(np.float32)
    return features, seconds(lambda: plain_clustering(points)), training


def time_epochs(is_whole: bool) -> None:
    n_plain, n_ours = (N_EPOCH, N_EPOCH) if is_whole else (N_PLAIN, N_OURS)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), max(n_plain, n_ours))
        images = folder_cache.load("folder", path=folder, root=f"{folder}/.root", size=SIZE).images
        features, clustering, training = plain_epoch(paths[:n_plain])
        total = features + clustering + training
        print(
            f"plain  vgg16     {total:6.0f} s per epoch of {N_EPOCH:,} images of {SIZE} px "
            f"(features {features:.0f}, clustering {clustering:.0f}, training {training:.0f})",
            flush=True,
        )
        for mode, options in OURS:
            ours = our_epoch(images[:n_ours], mode, **options) / n_ours * N_EPOCH
            name = " ".join(map(str, options.values()))
            print(
                f"ours   {name:16} {ours:6.0f} s, mode {mode}: ratio {total / ours:.1f}", flush=True
            )


def time_kmeans(n: int = 100_000, d: int = 256, k: int = 1000, n_iterations: int = 20) -> None:
    points = F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(0)))
    spent = {}
    for backend in ("torch", "faiss") if importlib.util.find_spec("faiss") else ("torch",):
        began = time.perf_counter(), time.process_time()
        clusters = kmeans(points, k, n_iterations=n_iterations, backend=backend)
        spent[backend] = time.perf_counter() - began[0]
        print(
            f"k-means of {n:,} x {d}, k {k:,}, {n_iterations} iterations, {backend}: "
            f"{spent[backend]:.1f} s ({time.process_time() - began[1]:.1f} s of CPU time), "
            f"objective {clusters.objective:.0f}",
            flush=True,
        )
    if "faiss" in spent:
        print(
            f"ours takes {spent['torch'] / spent['faiss']:.2f} times as long as faiss", flush=True
        )


def time_pic(n: int = 20_000, d: int = 256) -> None:
    points = F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(0)))
    began = time.perf_counter(), time.process_time()
    n_clusters = len(pic(points).unique())
    print(
        f"power iteration clustering of {n:,} x {d}: {time.perf_counter() - began[0]:.1f} s "
        f"({time.process_time() - began[1]:.1f} s of CPU time), {n_clusters:,} clusters",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--whole", action="store_true", help="time all 2,000 images, half an hour (default: a few)"
    )
    parser.add_argument(
        "--only", choices=("epochs", "kmeans", "pic"), help="time only one part (default: all)"
    )
    options = parser.parse_args()
    malloc_tuning.disable_trimming()
    print(f"DeepCluster on {torch.get_num_threads()} threads", flush=True)
    if options.only in (None, "epochs"):
        time_epochs(options.whole)
    if options.only in (None, "kmeans"):
        time_kmeans()
    if options.only in (None, "pic"):
        time_pic()


if __name__ == "__main__":
    main()
