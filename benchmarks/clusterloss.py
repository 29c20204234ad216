"""Facility location loss and gradient against loops with scikit-learn's NMI, as in the original.

The tests compare the loss with the same loops.
"""

import statistics
import time

import numpy as np
from sklearn import metrics as scores

N_REPEATS, N_STEPS = 5, 3
GAMMA = 64.0
AGREEMENTS = {
    "nmi": scores.normalized_mutual_info_score,
    "ami": scores.adjusted_mutual_info_score,
    "ari": scores.adjusted_rand_score,
    "vmeasure": scores.v_measure_score,
}


def distances_of(embeddings: np.ndarray) -> np.ndarray:
    return np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)


def assign(distances: np.ndarray, medoids: list[int]) -> np.ndarray:
    """Position in `medoids` of the medoid nearest to each point; a medoid is nearest to itself."""
    clusters = distances[:, medoids].argmin(1)
    clusters[medoids] = range(len(medoids))
    return clusters


def margin(labels: np.ndarray, clusters: np.ndarray, kind: str, average: str) -> float:
    if kind == "const":
        pairs = len(set(zip(labels.tolist(), clusters.tolist(), strict=True)))
        return float(not pairs == len(set(labels.tolist())) == len(set(clusters.tolist())))
    options = {"average_method": average} if kind in ("nmi", "ami") else {}
    return 1 - max(0.0, AGREEMENTS[kind](labels, clusters, **options))


def facility_score(distances: np.ndarray, medoids: list[int]) -> float:
    return -distances[
        np.arange(len(distances)), np.array(medoids)[assign(distances, medoids)]
    ].sum()


def augmented_score(
    distances: np.ndarray,
    labels: np.ndarray,
    medoids: list[int],
    gamma: float,
    kind: str = "nmi",
    average: str = "arithmetic",
) -> float:
    clusters = assign(distances, medoids)
    return facility_score(distances, medoids) + gamma * margin(labels, clusters, kind, average)


def class_medoids(distances: np.ndarray, labels: np.ndarray) -> list[int]:
    medoids = []
    for label in dict.fromkeys(labels.tolist()):
        members = np.flatnonzero(labels == label)
        medoids.append(int(members[distances[np.ix_(members, members)].sum(1).argmin()]))
    return medoids


def greedy(distances: np.ndarray, labels: np.ndarray, *options: object) -> list[int]:
    medoids: list[int] = []
    for _ in range(len(set(labels.tolist()))):
        others = [c for c in range(len(labels)) if c not in medoids]
        scores = [augmented_score(distances, labels, [*medoids, c], *options) for c in others]
        medoids.append(others[int(np.argmax(scores))])
    return medoids


def pam(
    distances: np.ndarray,
    labels: np.ndarray,
    medoids: list[int],
    gamma: float,
    kind: str = "nmi",
    average: str = "arithmetic",
) -> list[int]:
    medoids = list(medoids)
    for _ in range(5):
        clusters = assign(distances, medoids)
        for k in range(len(medoids)):
            members = np.flatnonzero(clusters == k)
            scores = []
            for c in members:
                tried = [*medoids[:k], c, *medoids[k + 1 :]]
                delta = margin(labels, assign(distances, tried), kind, average)
                scores.append(gamma * delta - distances[members, c].sum())
            medoids[k] = int(members[int(np.argmax(scores))])
    return medoids


def loss_and_gradient(
    embeddings: np.ndarray, labels: np.ndarray, gamma: float, refine: str
) -> tuple[float, np.ndarray]:
    """The original in loops: embeddings (n, d), labels (n,) -> summed loss, gradient (n, d)."""
    distances = distances_of(embeddings)
    medoids = greedy(distances, labels, gamma)
    if refine == "pam":
        medoids = pam(distances, labels, medoids, gamma)
    medoids_of_classes = class_medoids(distances, labels)
    order = list(dict.fromkeys(labels.tolist()))
    truth = np.array([medoids_of_classes[order.index(label)] for label in labels.tolist()])
    nearest = np.array(medoids)[assign(distances, medoids)]
    rows = np.arange(len(labels))
    loss = augmented_score(distances, labels, medoids, gamma) + distances[rows, truth].sum()
    gradient = np.zeros_like(embeddings)
    if loss > 0:
        for sign, target in ((1, truth), (-1, nearest)):
            for i, j in enumerate(target):
                if distances[i, j] > 0:
                    pull = sign * (embeddings[i] - embeddings[j]) / distances[i, j]
                    gradient[i] += pull
                    gradient[j] -= pull
    return max(0.0, loss), gradient


def main() -> None:
    from clusterloss_tf import config, train
    from clusterloss_tf.loss import facility_location
    from common.tf import tf

    @tf.function(jit_compile=True)
    def ours(embeddings, labels, refine):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            loss = tf.reduce_sum(facility_location(embeddings, labels, GAMMA, refine))
        return loss, tape.gradient(loss, embeddings)

    print(f"facility location, forward and backward, 64-d, medians of {N_REPEATS} repeats")
    for n, n_classes, refine, is_compared in (
        (128, 32, "greedy", True),
        (128, 32, "pam", True),
        (128, 32, "swap", False),
        (256, 64, "greedy", False),
        (256, 64, "pam", False),
    ):
        embeddings = np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        labels = np.repeat(np.arange(n_classes), n // n_classes)
        tensors = tf.constant(embeddings), tf.constant(labels), refine
        ours(*tensors)
        our_times, loop_times = [], []
        for _ in range(N_REPEATS):
            began = time.perf_counter()
            loss, _ = (tensor.numpy() for tensor in ours(*tensors))
            our_times.append(time.perf_counter() - began)
            if is_compared:
                began = time.perf_counter()
                expected, _ = loss_and_gradient(
                    embeddings.astype(np.float64), labels, GAMMA, refine
                )
                loop_times.append(time.perf_counter() - began)
        line = f"{n} points, {n_classes:2} classes, {refine:6}  ours {_ms(our_times):7.1f} ms"
        if is_compared:
            np.testing.assert_allclose(loss, expected, rtol=1e-4)
            ratio = _ms(loop_times) / _ms(our_times)
            line += f"  loops {_ms(loop_times):7.0f} ms  ratio {ratio:5.0f}"
        print(line, flush=True)
    images = np.random.default_rng(0).integers(0, 256, (128, 32, 32, 3), np.uint8)
    labels = np.repeat(np.arange(32), 4)
    state = train.State(config.Config(), images, labels)
    train.train_step(state, images, labels)
    steps = []
    for _ in range(N_STEPS):
        began = time.perf_counter()
        train.train_step(state, images, labels)
        steps.append(time.perf_counter() - began)
    print(f"a step of DenseNet-40 with it, 128 images of 32x32: {_ms(steps):.0f} ms")


def _ms(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main()
