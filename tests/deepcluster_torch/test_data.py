import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import UserError, datasets
from deepcluster_torch import data


def write(folder, n, first=0, side=8):
    """n noisy images in sub-folders a and b."""
    for i in range(first, first + n):
        place = folder / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / f"{i:03d}.png")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "photos", 11)
    return tmp_path / "photos"


@pytest.fixture
def load(folder, tmp_path):
    def call(**options):
        return data.load("folder", path=folder, root=tmp_path / "root", **options)

    return call


def cached(tmp_path):
    return sorted((tmp_path / "root/cache").glob("*.pixels"))


def assert_same(found, expected):
    assert np.array_equal(found.images, expected.images)
    assert np.array_equal(found.labels, expected.labels)
    assert found.paths == expected.paths and found.classes == expected.classes
    assert found.checksum == expected.checksum and found.skipped == expected.skipped


def test_the_cache_holds_what_reading_the_folder_gives(load, folder):
    plain = datasets.load("folder", path=folder)
    for _ in ("built", "opened"):
        assert_same(load(), plain)


def test_the_second_time_no_image_is_decoded(load, monkeypatch):
    first = load()
    monkeypatch.setattr(Image, "open", None)
    assert_same(load(), first)


def test_pixels_are_a_read_only_map_of_the_file(load):
    for _ in ("built", "opened"):
        images = load().images
        assert isinstance(images, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0


@pytest.mark.parametrize("change", ["add", "remove", "rewrite", "rename"])
def test_a_changed_folder_is_read_anew_and_the_old_cache_is_gone(load, folder, tmp_path, change):
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


def test_sizes_and_sub_folders_have_caches_of_their_own(load, tmp_path):
    assert load(size=4).images.shape == (11, 4, 4, 3)
    assert load(size=6).images.shape == (11, 6, 6, 3)
    assert load(split="a").images.shape == (6, 8, 8, 3)
    assert len(cached(tmp_path)) == 3


def test_bad_files_are_skipped_named_and_judged_again_when_opened(load, folder, caplog):
    (folder / "a/bad.png").write_text("no picture")
    for _ in ("built", "opened"):
        caplog.clear()
        found = load(max_bad=0.2)
        assert len(found.images) == len(found.paths) == 11
        assert [Path(path).name for path, _ in found.skipped] == ["bad.png"]
        assert "bad.png" in caplog.text
    with pytest.raises(UserError, match="1 of 12 images cannot be read"):
        load(max_bad=0.01)


def test_a_refused_folder_leaves_no_cache(load, folder, tmp_path):
    (folder / "a/bad.png").write_text("no picture")
    with pytest.raises(UserError, match="dataset.max_bad"):
        load()
    assert cached(tmp_path) == []


def test_a_cache_that_was_cut_short_is_built_again(load, tmp_path, folder):
    load()
    about = next((tmp_path / "root/cache").glob("*.json"))
    about.unlink()  # it is written last
    assert_same(load(), datasets.load("folder", path=folder))
    pixels = cached(tmp_path)[0]
    os.truncate(pixels, 100)
    assert_same(load(), datasets.load("folder", path=folder))


def test_two_processes_at_once_both_have_the_images(folder, tmp_path):
    code = (
        "import sys; from deepcluster_torch import data;"
        "print(data.load('folder', path=sys.argv[1], root=sys.argv[2]).images.sum())"
    )
    command = [sys.executable, "-c", code, folder, tmp_path / "root"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [int(each.communicate()[0]) for each in both]
    assert sums == 2 * [int(datasets.load("folder", path=folder).images.sum())]
    assert len(cached(tmp_path)) == 1


def test_where_no_cache_can_be_written_the_images_are_in_memory(folder, tmp_path, caplog):
    (tmp_path / "root").write_text("a file")
    found = data.load("folder", path=folder, root=tmp_path / "root")
    assert not isinstance(found.images, np.memmap)
    assert_same(found, datasets.load("folder", path=folder))
    assert "no cache in" in caplog.text and "kept in memory" in caplog.text


def test_memory_is_flat_in_the_number_of_images(tmp_path):
    peaks = []
    for n in (40, 160):
        write(tmp_path / str(n), n, side=96)  # 27 kB each
        tracemalloc.start()
        found = data.load("folder", path=tmp_path / str(n), root=tmp_path / "root")
        for images, _ in data.batches(found.images, 8):
            images.float()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 120 more images are 3.3 MB
    assert peaks[1] - peaks[0] < 600_000


def test_sets_that_are_arrays_are_loaded_as_ever(tmp_path):
    assert_same(data.load("digits", root=tmp_path), datasets.load("digits"))
    assert list(tmp_path.iterdir()) == []


# ---- batches


def numbered(n):
    """Images (n, 2, 3, 1) whose pixels are their number."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 2, 3, 1))


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (12, 4), (7, 2), (9, 4), (3, 8), (2, 2)])
def test_batches_are_in_order_and_none_has_one_image(n, batch_size):
    seen = [indices.tolist() for _, indices in data.batches(numbered(n), batch_size)]
    assert sum(seen, []) == list(range(n)) and min(map(len, seen)) >= 2


def test_one_image_is_a_batch():
    assert len(list(data.batches(numbered(1), 4))) == 1


@pytest.mark.parametrize("first", [0, 2, 3])
def test_images_come_with_their_own_index_in_the_order_asked_for(first):
    order = torch.tensor([4, 4, 0, 9, 7, 1, 1, 2, 4])
    seen = []
    for images, indices in data.batches(numbered(10), 2, order, first):
        assert images.shape[1:] == (1, 2, 3) and images.dtype == torch.uint8
        assert torch.equal(images[:, 0, 0, 0].long(), indices)
        seen += indices.tolist()
    assert seen == order[2 * first :].tolist()


def test_batches_are_copies_with_channels_last_in_memory(load):
    images, _ = next(data.batches(load().images, 4))
    assert images.is_contiguous(memory_format=torch.channels_last)
    images[:] = 0
    assert load().images.max() > 0
