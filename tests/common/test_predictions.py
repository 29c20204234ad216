import csv

import numpy as np
import pytest

from common import UserError, predictions
from common.datasets import Images


def dataset(labels=None, classes=None):
    pixels = np.zeros((3, 2, 2, 1), np.uint8)
    return Images(pixels, labels, ["a.png", "b, c.png", "é.png"], classes, [], "checksum")


COLUMNS = {"cluster": np.array([0, 1, 1]), "distance": np.array([0.123456789, 2, np.nan])}


def test_write_saves_arrays_labels_and_a_row_per_image(tmp_path):
    arrays = {"clusters": np.array([0, 1, 1])}
    labels = np.array([1, 0, 1])
    predictions.write(tmp_path / "out", dataset(labels, ["cat", "dog"]), arrays, COLUMNS)
    with np.load(tmp_path / "out/predictions.npz", allow_pickle=False) as file:
        assert {name: file[name].tolist() for name in file} == {
            "clusters": [0, 1, 1],
            "labels": [1, 0, 1],
            "classes": ["cat", "dog"],
        }
    with open(tmp_path / "out/predictions.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "cluster", "distance"],
            ["a.png", "0", "0.123457"],
            ["b, c.png", "1", "2"],
            ["é.png", "1", "nan"],
        ]


@pytest.mark.parametrize(
    ("labels", "names"), [(None, ["clusters"]), (np.arange(3), ["clusters", "labels"])]
)
def test_write_leaves_out_missing_labels_and_classes(tmp_path, labels, names):
    predictions.write(tmp_path, dataset(labels), {"clusters": np.zeros(3, int)}, {})
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        assert [*file] == names


def test_write_deletes_galleries_of_earlier_predictions_only(tmp_path):
    gallery = tmp_path / "images/clusters/0"
    for expected in (True, False):  # the second time there are earlier predictions
        gallery.mkdir(parents=True, exist_ok=True)
        predictions.write(tmp_path, dataset(), {}, {})
        assert gallery.exists() == expected


def test_write_refuses_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/out: Not a directory"):
        predictions.write(tmp_path / "file" / "out", dataset(), {}, {})


def test_writing_names_the_folder_of_an_os_error(tmp_path):
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: Is a directory"):
        with predictions.writing(tmp_path):
            (tmp_path / "a").mkdir()
            (tmp_path / "a").write_text("")
    with pytest.raises(ValueError), predictions.writing(tmp_path):
        raise ValueError


def test_write_csv_refuses_columns_of_different_lengths(tmp_path):
    with pytest.raises(ValueError):
        predictions.write_csv(tmp_path / "a.csv", {"a": [1, 2], "b": [1]})


def test_margins_are_second_minus_first_distance():
    distances = np.array([[3.0, 1.0, 5.0], [2.0, 2.0, 0.5]])
    assert predictions.margins(distances).tolist() == [2.0, 1.5]
    assert np.isnan(predictions.margins(np.ones((4, 1)))).tolist() == [True] * 4
