import numpy as np
import pytest
import scipy.io
from PIL import Image

from common import UserError
from common.datasets import segmentations
from tests.common.datasets.files import write_image


def bsds(root, shape=(6, 8)):
    cells = np.empty((1, 2), object)
    for i in range(2):
        cells[0, i] = {"Segmentation": np.full(shape, i + 1, np.uint16)}
    for split in ("train", "val", "test"):
        write_image(root / f"BSDS500/data/images/{split}/1.jpg")
        path = root / f"BSDS500/data/groundTruth/{split}/1.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {"groundTruth": cells})
    return path


def test_bsds_has_every_annotator(root):
    bsds(root)
    dataset = segmentations.load("bsds500", root=root)
    assert len(dataset) == 3 and dataset.n_classes is None
    assert dataset.image(0).shape == (6, 8, 3)
    assert [truth.shape for truth in dataset.ground_truths(0)] == [(6, 8), (6, 8)]
    assert [truth[0, 0] for truth in dataset.ground_truths(2)] == [1, 2]
    assert len(segmentations.load("bsds500", "train+val", root)) == 2


@pytest.mark.parametrize("damage", ["cut", "shape", "key"])
def test_damaged_ground_truth_is_refused_by_name(root, damage):
    path = bsds(root, (3, 3) if damage == "shape" else (6, 8))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:150])
    if damage == "key":
        scipy.io.savemat(path, {"other": 1})
    with pytest.raises(UserError, match=str(path)):
        segmentations.load("bsds500", "test", root).ground_truths(0)


def test_missing_ground_truth_and_split_are_refused(root):
    bsds(root).unlink()
    with pytest.raises(UserError, match="groundTruth/test/1.mat"):
        segmentations.load("bsds500", "test", root)
    with pytest.raises(UserError, match="camvid lacks camvid/val, camvid/valannot"):
        segmentations.load("camvid", "val", root)
    with pytest.raises(UserError, match="expected one of bsds500"):
        segmentations.load("mnist")


def labels_png(path, values, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).convert(mode).save(path)


def test_camvid_has_eleven_classes_and_void(root):
    write_image(root / "camvid/val/a.png", (1, 3, 3))
    labels_png(root / "camvid/valannot/a.png", [[0, 10, 11]])
    dataset = segmentations.load("camvid", "val", root)
    assert dataset.ground_truths(0)[0].tolist() == [[0, 10, 11]]
    assert (dataset.n_classes, dataset.ignore) == (11, 11)
    labels_png(root / "camvid/valannot/a.png", [[0, 10, 12]])
    with pytest.raises(UserError, match="label 12, expected below 11"):
        dataset.ground_truths(0)
    labels_png(root / "camvid/valannot/a.png", [[0, 10, 11]], "RGB")
    with pytest.raises(UserError, match="mode RGB"):
        dataset.ground_truths(0)


def test_ade20k_labels_start_at_zero_and_0_is_ignored(root):
    write_image(root / "ADEChallengeData2016/images/validation/a.jpg", (1, 3, 3))
    labels_png(root / "ADEChallengeData2016/annotations/validation/a.png", [[0, 1, 150]])
    dataset = segmentations.load("ade20k", "val", root)
    assert dataset.ground_truths(0)[0].tolist() == [[255, 0, 149]]
    assert (dataset.n_classes, dataset.ignore) == (150, 255)


def test_stanford_background_reads_text_and_every_fifth_is_val(root):
    for i in range(6):
        write_image(root / f"iccv09Data/images/{i}.jpg", (2, 3, 3))
        path = root / f"iccv09Data/labels/{i}.regions.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0 7 -1\n1 2 3\n")
    train, val = (segmentations.load("stanford_background", s, root) for s in ("train", "val"))
    assert (len(train), len(val), train.n_classes) == (5, 1, len(train.classes)) and (
        val.paths[0].endswith("4.jpg")
    )
    assert val.ground_truths(0)[0].tolist() == [[0, 7, 255], [1, 2, 3]]
    (root / "iccv09Data/labels/4.regions.txt").write_text("0 7 -1\n1 2\n")
    with pytest.raises(UserError, match="4.regions.txt is damaged"):
        val.ground_truths(0)


@pytest.mark.parametrize(
    "image, truth",
    [
        ("train/a.jpg", "train/a.png"),
        ("train/images/a.jpg", "train/labels/a.png"),
        ("images/train/a.png", "labels/train/a.png"),
    ],
)
def test_folder_of_pairs_in_three_layouts(tmp_path, image, truth):
    write_image(tmp_path / image, (1, 3, 3))
    labels_png(tmp_path / truth, [[0, 2, 255]], "P")
    dataset = segmentations.load("folder", "train", path=tmp_path)
    assert (len(dataset), dataset.n_classes, dataset.ignore, dataset.classes) == (1, 3, 255, None)
    assert dataset.ground_truths(0)[0].tolist() == [[0, 2, 255]]
    (tmp_path / "classes.txt").write_text("sky\nsea\n\n")
    dataset = segmentations.load("folder", "train", path=tmp_path)
    assert (dataset.n_classes, dataset.classes) == (2, ["sky", "sea"])
    with pytest.raises(UserError, match="label 2, expected below 2"):
        dataset.ground_truths(0)


@pytest.mark.parametrize("folders", [("images", "labels"), ("train/images", "train/labels")])
def test_gray_images_are_not_label_maps(tmp_path, folders):
    """They do not count for the number of classes."""
    labels_png(tmp_path / folders[0] / "a.png", [[200, 31, 7]])
    labels_png(tmp_path / folders[1] / "a.png", [[0, 2, 255]])
    split = "train" if "/" in folders[0] else ""
    assert segmentations.load("folder", split, path=tmp_path).n_classes == 3


def test_folder_without_pairs_is_refused(tmp_path):
    write_image(tmp_path / "a.jpg", (1, 3, 3))
    with pytest.raises(UserError, match="contains no pair of image and labels"):
        segmentations.load("folder", path=tmp_path)
    with pytest.raises(UserError, match="nowhere does not exist"):
        segmentations.load("folder", path=tmp_path / "nowhere")
    with pytest.raises(UserError, match="needs dataset.path"):
        segmentations.load("folder")


def test_ade20k_reads_class_names(root):
    folder = root / "ADEChallengeData2016"
    write_image(folder / "images/validation/a.jpg", (1, 1, 3))
    labels_png(folder / "annotations/validation/a.png", [[1]])
    assert segmentations.load("ade20k", "val", root).classes is None
    rows = [f"{i}\t0.1\t1\t1\tname {i}, other" for i in range(1, 151)]
    (folder / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
    assert segmentations.load("ade20k", "val", root).classes[:2] == ["name 1", "name 2"]


def test_real_bsds(real):
    real("BSDS500")
    dataset = segmentations.load("bsds500", "train+val")
    assert len(dataset) == 300 and 4 <= len(dataset.ground_truths(0)) <= 9


def test_real_camvid(real):
    real("camvid")
    dataset = segmentations.load("camvid", "val")
    assert len(dataset) == 101 and dataset.image(0).shape == (360, 480, 3)
    assert set(np.unique(dataset.ground_truths(0)[0])) <= set(range(12))
