"""Scores of each part of the pipeline as rows of results.csv."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from common import bsds
from common.bsds import baselines
from tests.entry_scripts import one_line
from unsup_seg_torch.wnet import ablation, config, regions

SHAPE = (30, 42)
CFG = config.Model(crf_iterations=2)


@pytest.fixture
def two_halves():
    """An image of two noisy halves, probabilities that favor them a little, and the halves."""
    truth = np.zeros(SHAPE, int)
    truth[:, 25:] = 1
    noise = np.random.default_rng(0).integers(0, 30, (*SHAPE, 3))
    maps = np.where(truth == np.arange(4)[:, None, None], 0.4, 0.2).astype(np.float32)
    return (truth[..., None] * 150 + 40 + noise).astype(np.uint8), maps, truth


@pytest.mark.parametrize("name", [*ablation.TRAINED, *ablation.UNTRAINED])
def test_method_finds_two_halves(two_halves, name):
    image, maps, truth = two_halves
    if name in ablation.TRAINED:
        scales = ablation.TRAINED[name](image, maps, CFG)
    else:
        scales = ablation.UNTRAINED[name](image, None, CFG)
    n_scales = 1
    if "merged" in name:
        n_scales = len(regions.HEIGHTS)
    elif "spectral" in name:
        n_scales = len(baselines.COUNTS)
    assert len(scales) == n_scales
    assert all(labels.shape == SHAPE and labels.dtype.kind == "i" for labels in scales)
    best = max(bsds.region_scores(labels, [truth])["covering"] for labels in scales)
    assert best > 0.95


def test_merging_by_color_ignores_the_network(two_halves):
    image, maps, _ = two_halves
    first, second = (ablation.felzenszwalb_by_color(image, each, CFG) for each in (None, maps))
    assert np.array_equal(first, second)


def rows_of(answer):
    assert answer.code == 0, answer.err
    return list(csv.DictReader(io.StringIO(answer.out), baselines.COLUMNS))


def test_run_gives_a_row_per_method_and_score(checkout, finished_run, annotated):
    options = ["--root", annotated, "--processes", 1, "--machine", "a, b", "--methods"]
    methods = ["wnet_crf", "spectral_lab_xy"]
    command = "unsup_seg_torch.wnet.ablation"
    rows = rows_of(checkout(command, *options, *methods, "--", finished_run[1]))
    assert {row["machine"] for row in rows} == {"a, b"}
    seeds = {row["config"]: row["seed"] for row in rows}
    assert seeds == {"wnet_crf": "0", "spectral_lab_xy": "-"}
    values = {row["metric"]: float(row["value"]) for row in rows if row["config"] == "wnet_crf"}
    assert values["val_covering_ods"] == values["val_covering_ois"] <= 1
    # the label maps that pred.py writes have the same scores
    assert checkout.pred(finished_run[1]).code == 0
    label_maps = [
        np.asarray(Image.open(finished_run[1] / f"labels/{name}.png"), int)
        for name in ("flower", "temple")
    ]
    truths = [[cut_in_half(labels.shape)] * 2 for labels in label_maps]
    expected = bsds.benchmark([[labels] for labels in label_maps], truths)
    assert values["val_covering_ods"] == pytest.approx(expected["covering_ods"], abs=5e-5)
    assert values["val_f_ods"] == pytest.approx(expected["f_ods"], abs=5e-5)


def cut_in_half(shape):
    halves = np.ones(shape, int)
    halves[:, shape[1] // 2 :] = 2
    return halves


def test_method_of_a_network_without_a_run_is_refused(checkout, annotated):
    command = "unsup_seg_torch.wnet.ablation"
    answer = checkout(command, "--root", annotated, "--methods", "wnet_crf")
    reason = "wnet_crf needs a RUN; methods without a network: smoothed"
    assert reason in one_line(answer)
    answer = checkout(command, "nowhere", "--root", annotated)
    assert "nowhere is not a run folder" in one_line(answer)
