"""A finished run folder to report on."""

import json

import numpy as np
import pytest
import yaml

from common import images
from tests.common.report.page import noise, write_json


@pytest.fixture
def run(tmp_path):
    """Six images of two classes, five of them in the cluster of their class."""
    run = tmp_path / "dti_torch" / "runs" / "digits" / "1122_try"
    run.mkdir(parents=True)
    (tmp_path / "dti_torch" / "README.md").write_text(
        "# Transformation-invariant clustering\n\nText"
    )
    config = {"dataset": {"name": "digits"}, "model": {"name": "gmm"}, "training": {"seed": 3}}
    (run / "config.yml").write_text(yaml.safe_dump(config))
    write_json(
        run / "meta.json",
        argv=["train.py", "--tag", "my try"],
        date="2024-11-22T18:03:11+01:00",
        git={"commit": "84a0c79", "dirty": True},
        seconds=74.3,
        status="done",
        dataset_checksum="9f8b7c",
    )
    (run / "train.log").write_text("first line\nlast line\n")
    rows = [{"split": "train", "step": step, "loss": 1 / (step + 1)} for step in range(5)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(
        run / "scores.json",
        acc=0.8333,
        nmi=0.6,
        n_empty_clusters=0,
        n=6,
        protocol="All images at once.",
        baseline={"name": "k-means on pixels", "acc": 0.5},
        published={"acc": 0.973},
    )
    clusters, labels = np.array([1, 1, 1, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    np.savez(run / "predictions.npz", clusters=clusters, labels=labels)
    images.save_png(run / "images" / "prototypes.png", noise())
    for name in ("prototype", "closest", "random", "farthest", "average"):
        images.save_png(run / "images" / "clusters" / "01" / f"{name}.png", noise())
    return run
