from PIL import Image

from common import curves
from common.run import Run


def test_write_curves_plots_metrics_that_some_lines_lack(tmp_path):
    run = Run.create(tmp_path, "digits", "t", {})
    with run:
        for step in range(3):
            run.log("train", step, loss=1.0 / (step + 1), epoch=0)
        run.log("train", 3, loss=0.1, lr=0.5)
    path = curves.write_curves(run, ["loss", "lr"], log_scale=["loss"])
    assert path == run.path / "images/losses.png"
    with Image.open(path) as image:
        assert image.width == 700 and image.height == 500  # 7 x (1 + 2 x 2) inches
