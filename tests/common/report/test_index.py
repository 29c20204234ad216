from common import report
from tests.common.report.page import Page, write_json


def test_index_lists_runs_by_paper_with_scores_and_baseline(run):
    started = run.parents[1] / "usps" / "1123_b"
    started.mkdir(parents=True)
    write_json(started / "meta.json", status="running")
    other = run.parents[3] / "wnet_torch" / "runs" / "bsds500" / "1124_c"
    other.mkdir(parents=True)
    write_json(other / "meta.json", status="done")
    write_json(other / "scores.json", covering_ods=0.57, vi_ods=1.65, n_labels=8.3)
    (run.parent / "notes").mkdir()  # not a run
    report.write_report(run)
    page = Page(report.write_index(run.parents[3]))
    assert "3 runs" in page.text
    assert "Transformation-invariant clustering dti_torch" in page.text
    assert "run dataset model status date time Accuracy NMI" in page.text
    assert (
        "1122_try digits gmm done 2024-11-22 18:03 1 min 14 s 0.833 0.500 0.600 1123_b usps running"
        in page.text
    )
    assert "run dataset status date time Covering (ODS) VI (ODS) ↓" in page.text
    assert "1124_c bsds500 done 0.570 1.650 bits" in page.text
    links = {link["href"] for link in page.all("a")}
    assert links == {
        "../dti_torch/runs/digits/1122_try/report.html",
        "../dti_torch/runs/usps/1123_b",
        "../wnet_torch/runs/bsds500/1124_c",
    }
    assert len(page.all("img")) == 1
