"""Bad options, images and checkpoints: one line each."""

import os

import pytest
from PIL import Image

from tests.entry_scripts import change_config, copy_of, one_line
from tests.every_paper import Damaged


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"
    option = ("--model.n_outputs", 16)

    @pytest.fixture(params=[("n_outputs: 16", "n_outputs: 17", "(16,")])
    def change(self, request):
        return request.param


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--model.n_outputs", 1), "model.n_outputs is 1: expected 2 or more"),
        (
            ("--model.stem", "true", "--model.backbone", "vit_tiny_patch16_224"),
            "model.stem is True: expected false for a backbone of timm",
        ),
        (("--model.n_heads", 5), "model.width is 32: expected a multiple of its 5 heads"),
        (("--training.momentum", 1), "training.momentum is 1.0: expected 0 or more, below 1"),
        (("--training.temperature", 0), "training.temperature is 0.0: expected a number above 0"),
        (("--training.large_scale", "[0, 1]"), "training.large_scale is [0.0, 1.0]"),
        (("--training.clip", 0), "training.clip is 0.0: expected a number above 0"),
        (("--training.lr", ".inf"), "training.lr: expected a finite number"),
        (("--dataset.path", "nowhere"), "nowhere does not exist"),
        (("--model.crf_iterations", 2), "no option --model.crf_iterations"),
    ],
)
def test_wrong_config_is_refused_with_the_key(refused, options, reason):
    assert reason in refused(*options)


def test_single_image_is_refused_and_bad_ones_are_skipped(checkout, refused, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    Image.open(photos / "red/00.png").save(folder / "a.png")
    reason = "the dataset has 1 image: DINO needs at least two"
    assert reason in refused("--dataset.path", folder)
    Image.open(photos / "red/01.png").convert("L").save(folder / "b ü.png")
    (folder / "text.png").write_text("not an image")
    Image.open(photos / "red/02.png").save(folder / "cut.png")
    os.truncate(folder / "cut.png", 60)
    options = ["--dataset.path", folder, "--training.n_epochs", 1]
    assert "2 of 4 images cannot be read" in refused(*options)
    answer = checkout.train(*options, "--dataset.max_bad", 0.5)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == 2


def test_checkpoint_of_another_model_is_refused_with_the_difference(
    checkout, stopped_run, tmp_path
):
    run = copy_of(stopped_run, tmp_path)
    change_config(run, "n_outputs: 16", "n_outputs: 18")
    for answer in (checkout.resume(run), checkout.pred(run)):
        assert "is of another model: center is (16,), the config expects (18,)" in one_line(answer)


def test_divergence_is_refused_with_its_step(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.warmup", 0)
    assert "became" in one_line(answer) and "at step" in answer.err


def test_changed_images_are_refused_when_resuming(checkout, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for i in range(8):
        Image.open(photos / f"red/{i:02d}.png").save(folder / f"{i}.png")
    run = checkout.train("--dataset.path", folder, kill_at="1:SIGTERM").run
    (folder / "0.png").unlink()
    assert "changed since training" in one_line(checkout.resume(run))
