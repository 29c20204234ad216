"""The rows of what each part of the pipeline adds."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from common import bsds
from common.bsds import baselines
from tests.entry_scripts import one_line
from unsup_seg_torch import config, regions, stages

SHAPE = (30, 42)
CFG = config.Model(crf_iterations=2)


@pytest.fixture
def halves():
    """A picture of two halves in noise, probabilities that know of them a little, the halves."""
    truth = np.zeros(SHAPE, int)
    truth[:, 25:] = 1
    noise = np.random.default_rng(0).integers(0, 30, (*SHAPE, 3))
    maps = np.where(truth == np.arange(4)[:, None, None], 0.4, 0.2).astype(np.float32)
    return (truth[..., None] * 150 + 40 + noise).astype(np.uint8), maps, truth


@pytest.mark.parametrize("name", [*stages.TRAINED, *stages.UNTRAINED])
def test_a_stage_gives_maps_of_the_picture_that_find_its_halves(halves, name):
    image, maps, truth = halves
    if name in stages.TRAINED:
        scales = stages.TRAINED[name](image, maps, CFG)
    else:
        scales = stages.UNTRAINED[name](image, None, CFG)
    merges, cuts = "merged" in name, "spectral" in name
    assert len(scales) == (len(regions.HEIGHTS) if merges else len(baselines.COUNTS) if cuts else 1)
    assert all(one.shape == SHAPE and one.dtype.kind == "i" for one in scales)
    best = max(bsds.region_scores(one, [truth])["covering"] for one in scales)
    assert best > 0.95


def test_what_is_merged_does_not_see_the_network_where_there_is_none(halves):
    image, maps, _ = halves
    first, second = (stages.untrained(image, each, CFG) for each in (None, maps))
    assert np.array_equal(first, second)


def rows(answer):
    assert answer.code == 0, answer.err
    return list(csv.DictReader(io.StringIO(answer.out), baselines.COLUMNS))


def test_a_run_gives_a_row_for_each_stage_and_score(checkout, finished_run, people):
    options = ["--root", people, "--processes", 1, "--machine", "a, b", "--methods"]
    answer = checkout(
        "unsup_seg_torch.stages", *options, "wnet_crf", "spectral_lab_xy", "--", finished_run[1]
    )
    found = rows(answer)
    assert {row["machine"] for row in found} == {"a, b"}
    seeds = {row["config"]: row["seed"] for row in found}
    assert seeds == {"wnet_crf": "0", "spectral_lab_xy": "-"}
    values = {row["metric"]: float(row["value"]) for row in found if row["config"] == "wnet_crf"}
    assert values["val_covering_ods"] == values["val_covering_ois"] <= 1
    # the labels that pred.py writes are these
    assert checkout.pred(finished_run[1]).code == 0
    written = [
        np.asarray(Image.open(finished_run[1] / f"labels/{n}.png"), int)
        for n in ("flower", "temple")
    ]
    truths = [[halves_of(one.shape)] * 2 for one in written]
    expected = bsds.benchmark([[one] for one in written], truths)
    assert values["val_covering_ods"] == pytest.approx(expected["covering_ods"], abs=5e-5)
    assert values["val_f_ods"] == pytest.approx(expected["f_ods"], abs=5e-5)


def halves_of(shape):
    halves = np.ones(shape, int)
    halves[:, shape[1] // 2 :] = 2
    return halves


def test_a_stage_of_a_network_without_a_run_is_refused(checkout, people):
    answer = checkout("unsup_seg_torch.stages", "--root", people, "--methods", "wnet_crf")
    assert "wnet_crf needs a RUN; without one there are: smoothed" in one_line(answer)
    answer = checkout("unsup_seg_torch.stages", "nowhere", "--root", people)
    assert "nowhere is no run folder" in one_line(answer)
