import re

import numpy as np

from common import report
from tests.common.report.page import Page


def test_largest_200_clusters_are_shown_by_size(run):
    clusters = np.repeat(np.arange(300), np.arange(300) + 1)  # cluster k has k + 1 images
    np.savez(run / "predictions.npz", clusters=clusters)
    page = Page(report.write_report(run))
    assert "The 200 largest of 300 clusters." in page.text
    numbers = [int(number) for number in re.findall(r"Cluster (\d+)", page.text)]
    assert numbers == list(range(299, 99, -1))
    assert "180 more clusters" in page.text
    folded = [int(number) for number in re.findall(r"Cluster (\d+)", page.folded)]
    assert folded == list(range(279, 99, -1))


def test_all_strips_but_the_first_are_folded(run):
    page = Page(report.write_report(run))
    assert "Closest" not in page.folded
    for name in ("Random", "Farthest", "Average"):
        assert name in page.folded


def cells(page):
    """The confusion matrix as rows of text; the first cell of each is its heading."""
    table = page.html.partition('<table class="confusion')[2].partition("</table>")[0]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]


def test_confusion_columns_are_in_the_order_of_the_best_match(run):
    classes = np.array(["cat", "dog"])
    clusters, labels = np.array([1, 1, 1, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    np.savez(run / "predictions.npz", clusters=clusters, labels=labels, classes=classes)
    page = Page(report.write_report(run))
    assert cells(page) == [["", "1", "0"], ["cat", "3", ""], ["dog", "1", "2"]]
    assert "75% are “cat”" in page.text


def test_large_confusion_matrix_is_limited_to_40_by_40(run):
    clusters = np.arange(100)
    np.savez(run / "predictions.npz", clusters=clusters, labels=clusters[::-1] // 2)
    page = Page(report.write_report(run))
    assert [len(row) for row in cells(page)] == [41] * 41
    assert "Of 50 classes the 40 largest are shown. Of 100 clusters 40 are shown." in page.text
