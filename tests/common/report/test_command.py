import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "common.report", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_command_writes_a_report_and_nothing_on_stdout(run):
    done = command(run)
    assert (done.returncode, done.stdout) == (0, "")
    assert str(run / "report.html") in done.stderr and (run / "report.html").is_file()


def test_command_refuses_wrong_folders_in_one_line(tmp_path):
    for arguments in ([tmp_path / "no"], [], ["--all", tmp_path / "no"]):
        done = command(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_all_writes_the_index_and_outdated_reports(run):
    assert command("--all", run.parents[3]).returncode == 0
    assert (run.parents[3] / "runs" / "index.html").is_file()
    before = (run / "report.html").stat().st_mtime_ns
    assert "report.html" not in command("--all", run.parents[3]).stderr
    assert (run / "report.html").stat().st_mtime_ns == before
