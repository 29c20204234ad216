import numpy as np
import pytest
import scipy.io
from PIL import Image

from common import UserError
from common.datasets import segmentations
from tests import tiff_files
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


def turned_photograph(path):
    """6x8 as stored, 8x6 upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return write_image(path, (6, 8, 3), exif=exif)


UPRIGHT = np.arange(48).reshape(8, 6) % 5


def test_labels_of_a_turned_photograph_have_its_upright_size(tmp_path):
    turned_photograph(tmp_path / "a.jpg")
    labels_png(tmp_path / "a.png", UPRIGHT)
    dataset = segmentations.load("folder", path=tmp_path)
    assert dataset.image(0).shape == (8, 6, 3)
    assert np.array_equal(dataset.ground_truths(0)[0], UPRIGHT)


def test_labels_as_stored_are_refused_with_the_reason(tmp_path):
    turned_photograph(tmp_path / "a.jpg")
    labels_png(tmp_path / "a.png", UPRIGHT.T)
    dataset = segmentations.load("folder", path=tmp_path)
    with pytest.raises(
        UserError, match=r"a.png.*\(a.jpg has this size only as it is stored, before"
    ):
        dataset.ground_truths(0)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_labels_are_turned_by_their_own_exif(tmp_path, orientation):
    write_image(tmp_path / "a.jpg", (8, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = UPRIGHT.T if orientation >= 5 else UPRIGHT
    Image.fromarray(stored.astype(np.uint8)).save(tmp_path / "a.png", exif=exif)
    truth = segmentations.load("folder", path=tmp_path).ground_truths(0)[0]
    assert np.array_equal(truth, tiff_files.upright(stored, orientation))


def test_bsds_ground_truth_has_the_upright_size(root):
    bsds(root, (8, 6))
    turned_photograph(root / "BSDS500/data/images/val/1.jpg")
    dataset = segmentations.load("bsds500", "val", root)
    assert [truth.shape for truth in dataset.ground_truths(0)] == [(8, 6), (8, 6)]


LABELS = np.array([[0, 1, 2], [3, 0, 1]])


def write_labels(path, labels=LABELS):
    """Writes labels as the kind of file that the suffixes name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "".join(path.suffixes)
    path = path.with_name(path.name.split(".")[0] + path.suffix)
    if kind == ".npy":
        np.save(path, labels)
    elif kind == ".float.npy":
        np.save(path, labels[None].astype(np.float32))
    elif kind == ".mat":
        scipy.io.savemat(path, {"segs": labels})
    elif kind == ".bsds.mat":
        cells = np.empty((1, 1), object)
        cells[0, 0] = {"Segmentation": labels}
        scipy.io.savemat(path, {"groundTruth": cells})
    else:
        dtype = {".16.png": np.uint16, ".32.tif": np.int32}.get(kind, np.uint8)
        Image.fromarray(labels.astype(dtype)).save(path)
    return path


KINDS = [".png", ".16.png", ".npy", ".float.npy", ".mat", ".bsds.mat", ".tif", ".32.tif"]


@pytest.mark.parametrize("kind", KINDS)
def test_folder_reads_the_label_files_that_the_benchmark_reads(tmp_path, kind):
    write_image(tmp_path / "images/a.png", (2, 3, 3))
    write_labels(tmp_path / f"labels/a{kind}")
    dataset = segmentations.load("folder", path=tmp_path)
    assert dataset.n_classes == 4
    assert np.array_equal(dataset.ground_truths(0)[0], LABELS)


@pytest.mark.parametrize("image", ["a.jpg", "a.png"])
@pytest.mark.parametrize("kind", [".npy", ".mat"])
def test_arrays_may_be_beside_their_image(tmp_path, image, kind):
    write_image(tmp_path / image, (2, 3, 3))
    write_labels(tmp_path / f"a{kind}")
    dataset = segmentations.load("folder", path=tmp_path)
    assert dataset.paths == [str(tmp_path / image)]
    assert np.array_equal(dataset.ground_truths(0)[0], LABELS)


def test_bilevel_labels_are_0_and_1(tmp_path):
    write_image(tmp_path / "a.jpg", (2, 3, 3))
    Image.fromarray(LABELS > 0).save(tmp_path / "a.png")
    dataset = segmentations.load("folder", path=tmp_path)
    assert dataset.n_classes == 2
    assert np.array_equal(dataset.ground_truths(0)[0], LABELS > 0)


def test_two_label_files_of_an_image_and_several_maps_are_refused(tmp_path):
    write_image(tmp_path / "a.jpg", (2, 3, 3))
    write_labels(tmp_path / "a.png")
    path = write_labels(tmp_path / "a.npy")
    with pytest.raises(UserError, match="two label maps of one image, a.npy and a.png: keep one"):
        segmentations.load("folder", path=tmp_path)
    (tmp_path / "a.png").unlink()
    np.save(path, np.zeros((3, 2, 3), int))
    with pytest.raises(UserError, match="a.npy.*3 label maps, expected one"):
        segmentations.load("folder", path=tmp_path)
    np.save(path, LABELS + 0.5)
    with pytest.raises(UserError, match="a.npy.*fractions"):
        segmentations.load("folder", path=tmp_path)
    np.save(path, LABELS * 200)
    with pytest.raises(UserError, match="label 600: expected 0 to 254, .* or set dataset.values"):
        segmentations.load("folder", path=tmp_path)


def test_values_name_the_classes(tmp_path):
    write_image(tmp_path / "a.jpg", (2, 3, 3))
    labels_png(tmp_path / "a.png", [[0, 255, 7], [255, 0, 128]])
    dataset = segmentations.load("folder", path=tmp_path, values=[255, 0])
    assert (dataset.n_classes, dataset.classes) == (2, ["255", "0"])
    assert dataset.ground_truths(0)[0].tolist() == [[1, 0, 255], [0, 1, 255]]
    (tmp_path / "classes.txt").write_text("cell\nground\n")
    dataset = segmentations.load("folder", path=tmp_path, values=[255, 0])
    assert dataset.classes == ["cell", "ground"]
    with pytest.raises(UserError, match="dataset.values has 3 classes, .*classes.txt 2"):
        segmentations.load("folder", path=tmp_path, values=[0, 1, 2])
    with pytest.raises(UserError, match="dataset.values is for folders"):
        segmentations.load("camvid", values=[0, 1])


def test_images_without_labels_and_of_other_formats_are_logged(tmp_path, caplog):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_image(tmp_path / name, (1, 3, 3))
    (tmp_path / "d.nef").write_bytes(b"x")
    labels_png(tmp_path / "a.png", [[0, 1, 2]])
    assert len(segmentations.load("folder", path=tmp_path)) == 1
    assert f"2 of 3 images of {tmp_path} have no label map and are not used" in caplog.text
    assert "1 image file is not read: 1 .nef" in caplog.text


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
