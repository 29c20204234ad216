import csv

import numpy as np
import pytest

from common import UserError, datasets
from deepcluster_torch.cluster.final import Assignments
from deepcluster_torch.evaluation import outputs


def dataset(n):
    pixels = np.zeros((n, 4, 4, 1), np.uint8)
    return datasets.Images(pixels, None, [f"{i}.png" for i in range(n)], None, [], "")


def write(folder, distances):
    """Writes images with distances (n, m) to clusters 0 .. m - 1 -> rows of predictions.csv."""
    distances = np.array(distances, np.float32)
    nearest = np.tile(np.arange(distances.shape[1]), (len(distances), 1))
    embeddings = np.ones((len(distances), 2), np.float32)
    assignments = Assignments(nearest, distances, nearest[:, 0], embeddings)
    outputs.write(folder, dataset(len(distances)), assignments, distances.shape[1])
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_margin_is_the_difference_of_the_two_smallest_distances(tmp_path):
    rows = write(tmp_path, [[0.25, 0.75, 1.0], [0.5, 0.5, 0.75]])
    assert [row["margin"] for row in rows] == ["0.5", "0"]
    assert [row["distance"] for row in rows] == ["0.25", "0.5"]
    assert rows[0]["top_3"] == "0 1 2"


def test_margin_of_one_cluster_is_nan(tmp_path):
    assert [row["margin"] for row in write(tmp_path, [[0.25], [0.5]])] == ["nan", "nan"]


def test_duplicate_names_in_a_folder_get_numbers(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_text(name)
    paths = [str(tmp_path / name / "x.png") for name in ("a", "b")]
    images = datasets.Images(np.zeros((2, 4, 4, 1), np.uint8), None, paths, None, [], "")
    outputs.write_folders(tmp_path / "out", images, np.array([1, 1]), "copy")
    names = sorted(path.name for path in (tmp_path / "out/01").iterdir())
    assert names == ["x.png", "x_2.png"]
    with pytest.raises(UserError, match="out exists: move it away"):
        outputs.write_folders(tmp_path / "out", images, np.array([1, 1]), "copy")
