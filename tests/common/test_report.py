import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from common import UserError, images, report
from common.report import charts, formatting

ROOT = Path(__file__).resolve().parents[2]
RANDOM = np.random.default_rng(0)


@pytest.fixture
def run(tmp_path):
    """A finished run: six images of two classes, of which k-means got five right."""
    run = tmp_path / "dti_torch" / "runs" / "digits" / "1122_try"
    run.mkdir(parents=True)
    (tmp_path / "dti_torch" / "README.md").write_text(
        "# Transformation-invariant clustering\n\nText"
    )
    config = {"dataset": {"name": "digits"}, "training": {"seed": 3}}
    (run / "config.yml").write_text(yaml.safe_dump(config))
    write(
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
    write(
        run / "scores.json",
        acc=0.8333,
        nmi=0.6,
        n=6,
        protocol="All images at once.",
        baseline={"name": "k-means on pixels", "acc": 0.5},
        published={"acc": 0.973},
    )
    clusters, labels = np.array([1, 1, 1, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    np.savez(run / "predictions.npz", clusters=clusters, labels=labels)
    images.save_png(run / "images" / "prototypes.png", noise())
    for name in ("prototype", "closest", "random", "furthest", "average"):
        images.save_png(run / "images" / "clusters" / "01" / f"{name}.png", noise())
    return run


# ---- runs and pages to look at


def noise(h=8, w=8):
    return RANDOM.integers(0, 256, (h, w, 3), np.uint8)


def write(path, **values):
    path.write_text(json.dumps(values))


class Page(HTMLParser):
    """Tags of a page and its text without the navigation; every tag closes in its order."""

    def __init__(self, path):
        super().__init__()
        self.html = Path(path).read_text(encoding="utf-8")
        self.tags, self.words, self.open = [], [], []
        self.feed(self.html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script", "nav"} & set(self.open):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


# ---- the page as a whole


def test_a_finished_run_shows_every_part_in_order(run):
    page = Page(report.write_report(run))
    parts = ["Transformation-invariant clustering", "digits · 1122_try · done", "2024-11-22 18:03"]
    parts += ["1 min 14 s", "83.3% of 6 images", "k-means on pixels: 50.0%; published: 97.3%."]
    parts += ["Scores", "Accuracy", "0.833", "k-means on pixels", "0.500", "published", "0.973"]
    parts += [
        "All images at once.",
        "Pictures",
        "Prototypes",
        "Clusters",
        "Cluster 1",
        "75% are “0”",
    ]
    parts += ["4 images, 66.7%", "Closest", "Random", "Furthest", "Average", "Cluster 0"]
    parts += ["2 images, 33.3%", "Confusion matrix", "Curves", "Loss", "Provenance"]
    parts += ["train.py --tag 'my try'", "84a0c79, with uncommitted changes", "9f8b7c"]
    parts += ["Configuration", "seed: 3", "End of the log", "last line", "Files", "predictions.npz"]
    place = 0
    for part in parts:
        assert part in page.text[place:], part
        place = page.text.index(part, place) + len(part)


def test_a_report_loads_nothing_from_elsewhere(run):
    page = Page(report.write_report(run))
    assert not re.search(r"https?:|url\(|@import|srcset", page.html)
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert {"link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)


def test_the_page_holds_the_pictures_themselves(run):
    page = Page(report.write_report(run))
    data = page.all("img")[0]["src"].partition("base64,")[2]
    embedded = np.array(Image.open(BytesIO(base64.b64decode(data))))
    assert np.array_equal(embedded, images.load(run / "images" / "prototypes.png"))


def test_without_labels_there_are_sizes_and_no_scores_and_no_confusion(run):
    np.savez(run / "predictions.npz", clusters=np.array([1, 1, 1, 1, 0, 0]))
    write(run / "scores.json", n=6, protocol="No labels.")
    text = Page(report.write_report(run)).text
    assert "6 images in 2 clusters." in text
    assert "These images have no labels" in text
    assert "4 images, 66.7%" in text
    assert "Accuracy" not in text and "Confusion" not in text and "are “" not in text


def test_a_run_that_has_just_begun_has_a_report(tmp_path):
    run = tmp_path / "dfc_tf" / "runs" / "folder" / "1122_a"
    run.mkdir(parents=True)
    write(run / "meta.json", status="running")
    text = Page(report.write_report(run)).text
    assert "dfc_tf folder · 1122_a · running" in text
    assert "There are no scores yet." in text
    assert "Curves" not in text and "Clusters" not in text


BROKEN = {
    "meta.json": ['{"argv": ["tr', "[]", '{"argv": 3, "seconds": "x", "date": 5, "git": "?"}'],
    "config.yml": ["a: [", "- 1", "!!python/object/apply:os.getcwd []", "training: 5"],
    "scores.json": [
        "",
        '{"acc": "high", "n": "x"}',
        '{"acc": NaN, "baseline": 3}',
        '{"acc": 0.5, "n": "x"}',
        '{"acc": 1' + "0" * 400 + ', "published": {"name": null}}',
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


# ---- what is odd in a run folder


@pytest.mark.parametrize(
    "name, content", [(name, content) for name, many in BROKEN.items() for content in many]
)
def test_a_broken_part_never_costs_the_report(run, name, content):
    (run / name).write_text(content)
    Page(report.write_report(run))
    report.write_index(run.parents[3])


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
def test_unexpected_predictions_never_cost_the_report(run, arrays):
    np.savez(run / "predictions.npz", **arrays)
    Page(report.write_report(run))


def test_the_last_half_line_of_the_metrics_is_left_out(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"split": "train", "step": 5, "lo')
    assert "last 0.200" in Page(report.write_report(run)).text  # step 4: 1 / 5


def test_names_with_markup_are_shown_and_not_obeyed(run):
    name = "1122_<b>\"x\"&'y'#?%"
    (run.parents[3] / "dti_torch" / "README.md").write_text("# <script>alert(1)</script>\n")
    run = run.rename(run.with_name(name))
    images.save_png(run / "images" / "a&b" / "<i>1 #?.png", noise())
    write(run / "images" / "captions.json", **{"prototypes.png": {"caption": "</figure><hr>"}})
    (run / "train.log").write_text("</pre><script>alert(2)</script>")
    page, index = Page(report.write_report(run)), Page(report.write_index(run.parents[3]))
    assert name in page.text and name in index.text
    assert "<script>alert(1)</script>" in page.text and "</figure><hr>" in page.text
    assert "A&b" in page.text and "<i>1 #?" in page.text
    assert len(page.all("script")) == 1 and not page.all("hr")
    link = index.all("a")[-1]["href"]
    assert "%3Cb%3E" in link and "#" not in link and "?" not in link


def test_file_names_that_are_no_unicode_do_not_break_the_report(run):
    (run / "\udcff.txt").write_text("")
    Page(report.write_report(run))


# ---- pictures and clusters


def test_the_same_picture_is_embedded_once(run):
    same = noise()
    for name in ("a.png", "b.png"):
        images.save_png(run / "images" / name, same)
    page = Page(report.write_report(run))
    sources = [image["src"] for image in page.all("img") if "src" in image]
    assert len(sources) == len(set(sources)) == 7  # prototypes, a, five of the cluster
    (again,) = (image["data-same"] for image in page.all("img") if "data-same" in image)
    assert again in [image.get("id") for image in page.all("img")]


def test_pictures_wider_than_1600_pixels_are_made_smaller(run):
    images.save_png(run / "images" / "prototypes.png", noise(100, 3200))
    first = Page(report.write_report(run)).all("img")[0]
    assert (first["width"], first["height"]) == ("1600", "50")


def test_a_report_stays_below_15_megabytes_and_links_the_rest(run):
    frames = RANDOM.integers(0, 256, (3, 1500, 1500), np.uint8)
    for name in "abcd":
        images.save_gif(run / "images" / f"{name} 1.gif", np.roll(frames, ord(name), axis=1))
    total = sum(path.stat().st_size for path in run.glob("images/*.gif"))
    page = Page(report.write_report(run))
    assert len(page.html) < 15e6 < total
    linked = [image["src"] for image in page.all("img") if image["src"].startswith("images/")]
    assert linked and all((run / link.replace("%20", " ")).is_file() for link in linked)
    assert f"{len(linked)} pictures are linked" in page.text


def test_pictures_stand_in_the_order_of_the_captions(run):
    for name in ("a.png", "z.png", "zoo/1.png", "ant/1.png"):
        images.save_png(run / "images" / name, noise())
    captions = {
        "z.png": {"title": "The last letter", "caption": "first"},
        "zoo": {"title": "Animals"},
        "clusters": {"caption": "What the rows are."},
    }
    write(run / "images" / "captions.json", **captions)
    text = Page(report.write_report(run)).text
    places = [text.index(word) for word in ("The last letter first", "A Prototypes", "Clusters 2")]
    places += [text.index("What the rows are."), text.index("Animals"), text.index("Ant ")]
    assert places == sorted(places)


def test_clusters_stand_by_size_and_only_the_largest_200(run):
    clusters = np.repeat(np.arange(300), np.arange(300) + 1)  # cluster k has k + 1 images
    np.savez(run / "predictions.npz", clusters=clusters)
    text = Page(report.write_report(run)).text
    assert "The 200 largest of 300 clusters." in text
    numbers = [int(number) for number in re.findall(r"Cluster (\d+)", text)]
    assert numbers == list(range(299, 99, -1))


# ---- confusion matrices, curves, scores


def cells(page):
    """The confusion matrix as rows of text, the heading of each row first."""
    table = page.html.partition('<table class="confusion')[2].partition("</table>")[0]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]


def test_confusion_columns_stand_in_the_order_of_the_best_match(run):
    classes = np.array(["cat", "dog"])
    clusters, labels = np.array([1, 1, 1, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    np.savez(run / "predictions.npz", clusters=clusters, labels=labels, classes=classes)
    page = Page(report.write_report(run))
    assert cells(page) == [["", "1", "0"], ["cat", "3", ""], ["dog", "1", "2"]]
    assert "75% are “cat”" in page.text


def test_a_large_confusion_matrix_is_cut_to_40_by_40_and_says_so(run):
    clusters = np.arange(100)
    np.savez(run / "predictions.npz", clusters=clusters, labels=clusters[::-1] // 2)
    page = Page(report.write_report(run))
    assert [len(row) for row in cells(page)] == [41] * 41
    assert "Of 50 classes the 40 largest are shown. Of 100 clusters 40 are shown." in page.text


def test_curves_have_one_chart_a_quantity_and_split_and_few_points(run):
    with open(run / "metrics.jsonl", "w") as file:
        for step in range(5000):
            row = {"split": "train", "step": step, "loss": 9.0 if step == 2718 else 1.0}
            file.write(json.dumps(row | {"proportion/0": 0.4, "proportion/1": 0.6}) + "\n")
        file.write(json.dumps({"split": "test", "step": 5000, "acc": 0.5}) + "\n")
    page = Page(report.write_report(run))
    assert len(page.all("svg")) == 3  # loss, proportion, acc of the test split
    loss, first, second, acc = (line["points"].split() for line in page.all("polyline"))
    assert max(map(len, (loss, first, second))) <= 500 and len(acc) == 1
    assert min(float(point.split(",")[1]) for point in loss) == 8  # the one spike reaches the top


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 1400, ["0", "500", "1000"]),
        (0, 60_000, ["0k", "20k", "40k", "60k"]),
        (0.021, 0.034, ["0.025", "0.030"]),
        (-1, 1, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert [text for _, text in charts._ticks(low, high)] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("knn_10", "k-NN of 10"),
        ("untrained knn_10", "Untrained k-NN of 10"),
        ("raw_pixels nmi", "Raw pixels NMI"),
        ("mean_accuracy", "Mean accuracy"),
    ],
)
def test_scores_within_scores_have_the_names_of_scores(name, expected):
    assert formatting.title(name) == expected


# ---- refusals, the index, the command


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no config.yml.*expected a run folder"):
        report.write_report(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        report.write_report(tmp_path / "absent")


def test_a_place_that_cannot_be_written_to_is_refused(run):
    (run / "report.html").mkdir()
    with pytest.raises(UserError, match="report.html cannot be written"):
        report.write_report(run)
    assert not list(run.glob(".report*"))


def test_the_index_lists_every_run_with_scores_baseline_and_link(run):
    begun = run.parents[1] / "usps" / "1123_b"
    begun.mkdir(parents=True)
    write(begun / "meta.json", status="running")
    (run.parent / "notes").mkdir()  # no run
    report.write_report(run)
    page = Page(report.write_index(run.parents[3]))
    assert "2 runs" in page.text
    assert (
        "dti_torch digits 1122_try done 2024-11-22 18:03 1 min 14 s 0.833 0.500 0.600" in page.text
    )
    assert "dti_torch usps 1123_b running" in page.text
    links = {link["href"] for link in page.all("a")}
    assert links == {
        "../dti_torch/runs/digits/1122_try/report.html",
        "../dti_torch/runs/usps/1123_b",
    }
    assert len(page.all("img")) == 1


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "common.report", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_command_writes_a_report_and_nothing_on_stdout(run):
    done = command(run)
    assert (done.returncode, done.stdout) == (0, "")
    assert str(run / "report.html") in done.stderr and (run / "report.html").is_file()


def test_the_command_refuses_a_wrong_folder_in_one_line(tmp_path):
    for arguments in ([tmp_path / "no"], [], ["--all", tmp_path / "no"]):
        done = command(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_all_writes_the_index_and_reports_that_are_out_of_date(run):
    assert command("--all", run.parents[3]).returncode == 0
    assert (run.parents[3] / "runs" / "index.html").is_file()
    before = (run / "report.html").stat().st_mtime_ns
    assert "report.html" not in command("--all", run.parents[3]).stderr
    assert (run / "report.html").stat().st_mtime_ns == before
