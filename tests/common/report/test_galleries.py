import numpy as np
import pytest

from common import images, report
from common.report import galleries
from tests.common.report.page import RANDOM, Page, noise, write_json


def test_images_wider_than_1600_pixels_are_reduced(run):
    images.save_png(run / "images" / "prototypes.png", noise(100, 3200))
    first = Page(report.write_report(run)).all("img")[0]
    assert (first["width"], first["height"]) == ("1600", "50")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((8, 8), 64),  # enlarged 8 times at most
        ((80, 60), 400),  # 5 times, to the limit of 400 pixels
        ((618, 60), 618),
        ((900, 800), 540),  # reduced to a height of 480
        ((1220, 885), 1220),  # a sheet as wide as the page keeps its size
        ((1, 9000), 1),
    ],
)
def test_images_are_shown_at_a_readable_size(size, expected):
    assert galleries._shown(*size, max_height=480) == expected


def test_report_stays_below_15_megabytes_and_links_the_rest(run):
    frames = RANDOM.integers(0, 256, (3, 1500, 1500), np.uint8)
    for name in "abcd":
        images.save_gif(run / "images" / f"{name} 1.gif", np.roll(frames, ord(name), axis=1))
    total = sum(path.stat().st_size for path in run.glob("images/*.gif"))
    page = Page(report.write_report(run))
    assert len(page.html) < 15e6 < total
    linked = [image["src"] for image in page.all("img") if image["src"].startswith("images/")]
    assert linked and all((run / link.replace("%20", " ")).is_file() for link in linked)
    assert f"{len(linked)} images are linked" in page.text


def test_images_are_in_the_order_of_the_captions(run):
    for name in ("a.png", "z.png", "zoo/1.png", "ant/1.png"):
        images.save_png(run / "images" / name, noise())
    captions = {
        "z.png": {"title": "The last letter", "caption": "first"},
        "zoo": {"title": "Animals"},
        "clusters": {"caption": "The rows of a strip."},
    }
    write_json(run / "images" / "captions.json", **captions)
    text = Page(report.write_report(run)).text
    parts = ("The last letter first", "A Prototypes", "Animals", "Ant ", "The rows of a strip.")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_subfolders_are_folded_unless_there_are_no_other_figures(run):
    for name in ("cat", "dog"):
        images.save_png(run / "images" / name / "contours.png", noise())
    assert "Contours" in Page(report.write_report(run)).folded
    (run / "images" / "prototypes.png").unlink()
    page = Page(report.write_report(run))
    assert page.text.count("Contours") == 2 and page.folded.count("Contours") == 1
