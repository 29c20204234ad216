import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from common import UserError, images, report
from tests.common.report.page import Page, assert_in_order, noise, write_json


def test_finished_run_shows_every_part_in_order(run):
    page = Page(report.write_report(run))
    header = ["Transformation-invariant clustering", "digits · gmm · 1122_try · done"]
    header += ["2024-11-22 18:03", "1 min 14 s", "83.3% of 6 images are in the cluster matched"]
    tiles = ["k-means on pixels: 50.0%; published: 97.3%.", "Accuracy", "0.833"]
    tiles += ["k-means on pixels", "0.500", "published", "0.973", "NMI", "0.600"]
    figures = ["Figures", "Prototypes", "Clusters", "2 clusters, the largest first."]
    cards = ["Cluster 1", "75% are “0”", "4 images, 66.7%", "Closest"]
    cards += ["Random, Farthest, Average", "Cluster 0", "2 images, 33.3%"]
    details = ["Confusion matrix", "Curves", "Loss", "Details", "python train.py --tag 'my try'"]
    details += ["All scores", "All images at once.", "Empty clusters 0", "Environment", "Seed 3"]
    details += ["84a0c79, with uncommitted changes", "9f8b7c", "Configuration", "seed: 3"]
    details += ["End of the log", "last line", "Files", "predictions.npz"]
    assert_in_order(page.text, header + tiles + figures + cards + details)


def test_minor_parts_are_folded(run):
    page = Page(report.write_report(run))
    for part in ("All images at once.", "Empty clusters", "84a0c79", "seed: 3", "last line"):
        assert part in page.folded
    for part in ("published: 97.3%.", "75% are “0”", "python train.py", "Closest"):
        assert part not in page.folded


def test_log_of_failed_run_is_not_folded(run):
    write_json(run / "meta.json", status="failed")
    assert "last line" not in Page(report.write_report(run)).folded


def test_report_loads_nothing_and_needs_no_script(run):
    page = Page(report.write_report(run))
    assert not re.search(r"https?:|url\(|@import|srcset", page.html)
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert {"link", "iframe", "object", "script"}.isdisjoint(tag for tag, _ in page.tags)


def test_images_are_embedded_unchanged(run):
    page = Page(report.write_report(run))
    data = page.all("img")[0]["src"].partition("base64,")[2]
    embedded = np.array(Image.open(BytesIO(base64.b64decode(data))))
    assert np.array_equal(embedded, images.load(run / "images" / "prototypes.png"))


def test_without_labels_sizes_replace_scores_and_confusion_matrix(run):
    np.savez(run / "predictions.npz", clusters=np.array([1, 1, 1, 1, 0, 0]))
    write_json(run / "scores.json", n=6, protocol="No labels.")
    text = Page(report.write_report(run)).text
    assert "6 images in 2 clusters." in text
    assert "No labels: showing cluster sizes" in text
    assert "4 images, 66.7%" in text
    assert "Accuracy" not in text and "Confusion" not in text and "are “" not in text


def test_run_that_has_just_started_has_a_report(tmp_path):
    run = tmp_path / "dfc_tf" / "runs" / "folder" / "1122_a"
    run.mkdir(parents=True)
    write_json(run / "meta.json", status="running")
    text = Page(report.write_report(run)).text
    assert "dfc_tf folder · 1122_a · running" in text
    assert "No scores yet." in text
    assert "Curves" not in text and "Clusters" not in text


def test_title_is_from_the_readme_of_the_model_if_it_has_one(run):
    readme = run.parents[2] / "gmm" / "README.md"
    readme.parent.mkdir()
    readme.write_text("# Gaussian mixture\n")
    assert Page(report.write_report(run)).text.count("Gaussian mixture") == 2  # <title> and <h1>


BROKEN = {
    "meta.json": ['{"argv": ["tr', "[]", '{"argv": 3, "seconds": "x", "date": 5, "git": "?"}'],
    "config.yml": ["a: [", "- 1", "!!python/object/apply:os.getcwd []", "training: 5\nmodel: []"],
    "scores.json": [
        "",
        '{"acc": "high", "n": "x"}',
        '{"acc": NaN, "baseline": 3}',
        '{"acc": 0.5, "n": "x"}',
        '{"acc": 1' + "0" * 400 + ', "published": {"name": null}}',
        '{"acc": 0.5, "acc_sd": "x", "nmi_sd": null, "iou": {}, "held_out": {"acc": []}}',
        '{"acc": 0.5, "acc_sd": -0.1, "nmi": 0.5, "nmi_sd": 1e20}',
    ],
    "predictions.npz": ["PK", ""],
    "images/captions.json": ["[1]", '{"prototypes.png": 5, "clusters": "x"}'],
    "images/prototypes.png": ["", "text"],
    "metrics.jsonl": [
        "5\n[]\n{}\n",
        '{"step": 1}\n{"step": null, "loss": 1}\n{"step": 1, "loss": null}\n',
        '{"step": 0, "loss": NaN}\n{"step": 1, "loss": Infinity}\n{"step": 2, "loss": 0}',
        '{"epoch": 0, "loss": 1e-310}\n{"epoch": 1, "loss": 2e-310}\n{"epoch": 2, "x": 1e29}\n',
    ],
}


@pytest.mark.parametrize(
    "name, content", [(name, content) for name, contents in BROKEN.items() for content in contents]
)
def test_broken_file_does_not_prevent_the_report(run, name, content):
    (run / name).write_text(content)
    Page(report.write_report(run))
    Page(report.write_index(run.parents[3]))


@pytest.mark.parametrize(
    "arrays",
    [
        {"clusters": np.zeros((3, 4, 4), int)},
        {"clusters": np.array([0.5, 1.5])},
        {"clusters": np.array([0, 1]), "labels": np.array([0])},
        {"clusters": np.array([-1, -1]), "labels": np.array([0, 1])},
        {"clusters": np.zeros(0, int), "labels": np.zeros(0, int)},
        {"clusters": np.array([0, 7]), "labels": np.array([-1, 2]), "classes": np.array("x")},
        {"clusters": np.array([{}], object)},
    ],
)
def test_unexpected_predictions_do_not_prevent_the_report(run, arrays):
    np.savez(run / "predictions.npz", **arrays)
    Page(report.write_report(run))


def test_markup_in_names_is_escaped(run):
    name = "1122_<b>\"x\"&'y'#?%"
    (run.parents[3] / "dti_torch" / "README.md").write_text("# <script>alert(1)</script>\n")
    run = run.rename(run.with_name(name))
    images.save_png(run / "images" / "a&b" / "<i>1 #?.png", noise())
    write_json(run / "images" / "captions.json", **{"prototypes.png": {"caption": "</figure><hr>"}})
    write_json(run / "scores.json", acc=0.5, iou={"<hr>": 0.5}, baseline={"name": "<hr>", "acc": 0})
    (run / "train.log").write_text("</pre><script>alert(2)</script>")
    page, index = Page(report.write_report(run)), Page(report.write_index(run.parents[3]))
    assert name in page.text and name in index.text
    assert "<script>alert(1)</script>" in page.text and "</figure><hr>" in page.text
    assert "A&b" in page.text and "<i>1 #?" in page.text and "IoU: <hr>" in page.text
    assert not page.all("script") and not page.all("hr")
    link = index.all("a")[-1]["href"]
    assert "%3Cb%3E" in link and "#" not in link and "?" not in link


def test_file_name_that_is_not_unicode_does_not_prevent_the_report(run):
    (run / "\udcff.txt").write_text("")
    Page(report.write_report(run))


def test_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no config.yml.*expected a run folder"):
        report.write_report(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        report.write_report(tmp_path / "absent")


def test_report_that_cannot_be_written_is_refused(run):
    (run / "report.html").mkdir()
    with pytest.raises(UserError, match="cannot write .*report.html"):
        report.write_report(run)
    assert not list(run.glob(".report*"))
