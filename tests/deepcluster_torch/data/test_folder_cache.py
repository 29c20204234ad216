import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import UserError, datasets
from deepcluster_torch.data import folder_cache
from deepcluster_torch.data.batches import batches


def write(folder, n, first=0, side=8):
    """n noisy images in sub-folders a and b."""
    for i in range(first, first + n):
        subfolder = folder / "ab"[i % 2]
        subfolder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(subfolder / f"{i:03d}.png")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "photos", 11)
    return tmp_path / "photos"


@pytest.fixture
def load(folder, tmp_path):
    def call(**options):
        return folder_cache.load("folder", path=folder, root=tmp_path / "root", **options)

    return call


def cached(tmp_path):
    return sorted((tmp_path / "root/cache").glob("*.pixels"))


def assert_same(dataset, expected):
    assert np.array_equal(dataset.images, expected.images)
    assert np.array_equal(dataset.labels, expected.labels)
    assert dataset.paths == expected.paths and dataset.classes == expected.classes
    assert dataset.checksum == expected.checksum and dataset.skipped == expected.skipped


def test_cached_images_equal_those_of_the_folder(load, folder):
    expected = datasets.load("folder", path=folder)
    for _ in ("built", "opened"):
        assert_same(load(), expected)


def test_second_load_decodes_no_image(load, monkeypatch):
    first = load()
    monkeypatch.setattr(Image, "open", None)
    assert_same(load(), first)


def test_pixels_are_a_read_only_memory_map(load):
    for _ in ("built", "opened"):
        images = load().images
        assert isinstance(images, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0


@pytest.mark.parametrize("change", ["add", "remove", "rewrite", "rename"])
def test_changed_folder_replaces_its_cache(load, folder, tmp_path, change):
    load()
    before = cached(tmp_path)
    first = folder / "a/000.png"
    if change == "add":
        write(folder, 1, first=11)
    elif change == "remove":
        first.unlink()
    elif change == "rename":
        first.rename(folder / "b/000.png")
    else:
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(first)
    assert_same(load(), datasets.load("folder", path=folder))
    assert len(cached(tmp_path)) == 1 and cached(tmp_path) != before


def test_sizes_and_subfolders_have_their_own_caches(load, tmp_path):
    assert load(size=4).images.shape == (11, 4, 4, 3)
    assert load(size=6).images.shape == (11, 6, 6, 3)
    assert load(split="a").images.shape == (6, 8, 8, 3)
    assert len(cached(tmp_path)) == 3


def test_bad_files_are_reported_when_built_and_when_opened(load, folder, caplog):
    (folder / "a/bad.png").write_text("not an image")
    for _ in ("built", "opened"):
        caplog.clear()
        dataset = load(max_bad=0.2)
        assert len(dataset.images) == len(dataset.paths) == 11
        assert [Path(path).name for path, _ in dataset.skipped] == ["bad.png"]
        assert "bad.png" in caplog.text
    with pytest.raises(UserError, match="1 of 12 images cannot be read"):
        load(max_bad=0.01)


def test_refused_folder_leaves_no_cache(load, folder, tmp_path):
    (folder / "a/bad.png").write_text("not an image")
    with pytest.raises(UserError, match="dataset.max_bad"):
        load()
    assert cached(tmp_path) == []


def test_incomplete_cache_is_rebuilt(load, tmp_path, folder):
    load()
    header = next((tmp_path / "root/cache").glob("*.json"))
    header.unlink()  # it is written last
    assert_same(load(), datasets.load("folder", path=folder))
    pixels = cached(tmp_path)[0]
    os.truncate(pixels, 100)
    assert_same(load(), datasets.load("folder", path=folder))


def test_two_processes_at_once_get_the_same_images(folder, tmp_path):
    code = (
        "import sys; from deepcluster_torch.data import folder_cache;"
        "print(folder_cache.load('folder', path=sys.argv[1], root=sys.argv[2]).images.sum())"
    )
    command = [sys.executable, "-c", code, folder, tmp_path / "root"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [int(each.communicate()[0]) for each in both]
    assert sums == 2 * [int(datasets.load("folder", path=folder).images.sum())]
    assert len(cached(tmp_path)) == 1


def test_images_are_in_memory_if_no_cache_can_be_written(folder, tmp_path, caplog):
    (tmp_path / "root").write_text("a file")
    dataset = folder_cache.load("folder", path=folder, root=tmp_path / "root")
    assert not isinstance(dataset.images, np.memmap)
    assert_same(dataset, datasets.load("folder", path=folder))
    assert "no cache in" in caplog.text and "kept in memory" in caplog.text


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    peaks = []
    for n in (40, 160):
        write(tmp_path / str(n), n, side=96)  # 27 kB each
        tracemalloc.start()
        dataset = folder_cache.load("folder", path=tmp_path / str(n), root=tmp_path / "root")
        for images, _ in batches(dataset.images, 8):
            images.float()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 120 more images are 3.3 MB
    assert peaks[1] - peaks[0] < 600_000


def test_datasets_that_are_arrays_are_not_cached(tmp_path):
    assert_same(folder_cache.load("digits", root=tmp_path), datasets.load("digits"))
    assert list(tmp_path.iterdir()) == []
