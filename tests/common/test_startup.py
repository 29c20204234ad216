"""Entry scripts without the packages of their extra: one line, exit code 2."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAPERS = sorted(path.parent.name for path in ROOT.glob("*_t*/train.py"))
# what the extras of pyproject.toml install beside the dependencies
EXTRAS = ("torch", "timm", "safetensors", "huggingface_hub", "tensorflow", "keras", "skimage")
EXTRAS += ("tifffile",)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder of links to the installed packages without those of the extras."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("purelib", "platlib"):
        for path in Path(sysconfig.get_path(name)).iterdir():
            if not path.name.startswith(EXTRAS) and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


def run(bare, *words, cwd=ROOT):
    """Runs Python without its site-packages but with those in `bare`."""
    environment = os.environ | {"PYTHONPATH": str(bare)}
    command = [sys.executable, "-S", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def assert_advice(result, paper):
    target, framework = paper.rsplit("_", 1)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and f", which {paper} needs, is not installed" in line
    assert f"run make {target} " in line and f"pip install -e '.[{framework}-cpu]'" in line


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS)
def test_missing_framework_is_one_line_with_the_command_that_installs_it(bare, paper):
    before = sorted((ROOT / paper).glob("runs/*/*"))
    assert_advice(run(bare, f"{paper}/train.py"), paper)
    assert_advice(run(bare, "-m", f"{paper}.train"), paper)
    assert_advice(run(bare, "train.py", cwd=ROOT / paper), paper)
    if paper != "unsup_seg_torch":  # it opens the run first
        assert_advice(run(bare, f"{paper}/pred.py", "nowhere"), paper)
    assert sorted((ROOT / paper).glob("runs/*/*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS)
def test_evaluate_needs_no_framework(bare, paper):
    result = run(bare, f"{paper}/evaluate.py", "nowhere")
    assert result.returncode == 2 and "nowhere does not exist" in result.stderr


def test_benchmark_without_tensorflow_is_refused(bare):
    assert_advice(run(bare, "dfc_tf/evaluate.py", "--benchmark", "bsds500"), "dfc_tf")


def test_other_errors_keep_their_traceback(bare, tmp_path):
    paper = tmp_path / "toy_torch"
    paper.mkdir()
    start = f"import sys; sys.path[0] = {str(ROOT)!r}\nfrom common import startup\n"
    start += "startup.prepare(__name__, __file__)\n"
    for text, error in (("1 / 0", "ZeroDivisionError"), ("import common.absent", "common.absent")):
        (paper / "train.py").write_text(start + text)
        result = run(bare, paper / "train.py")
        assert result.returncode == 1 and "Traceback" in result.stderr and error in result.stderr
