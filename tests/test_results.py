"""Measured numbers: each one in a README has its row in results.csv, of a commit in the history."""

import csv
import functools
import re
import statistics
import subprocess
from collections import defaultdict

import pytest

from tests.repository import PAPERS, READMES, ROOT, assert_none, relative, text_of

# They show measured numbers in tables between <!-- results --> and <!-- /results -->. A number
# with a decimal point must be, rounded as shown, a value or the minutes of one of its config's rows
# in results.csv, or their mean or standard deviation (n - 1) over the seeds. Its config is the one
# named beside it, between commas in its cell, or else the first that the line names. Published
# numbers and baselines have rows too, with a word or a dash as the seed. In the README of the root,
# each line names its paper's folder.


def unsupported(readme, rows):
    """The numbers of a README without a row, each with its line."""
    missing = []
    for block in re.findall(r"<!-- results -->(.*?)<!-- /results -->", readme, re.DOTALL):
        for line in filter(lambda line: line.startswith("|"), block.splitlines()):
            papers = {row["paper"] for row in rows if row["paper"] in line}
            local = [row for row in rows if row["paper"] in papers or not papers]
            configs = {row["config"] for row in local}
            default = next(filter(None, (named(configs, cell) for cell in line.split("|"))), None)
            for part in re.split(r"\||, ", line):
                config = named(configs, part) or default
                values = supported([row for row in local if row["config"] == config])
                for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", part):
                    half = 0.500001 * 10 ** -len(number.partition(".")[2])
                    if all(abs(float(number) - value) > half for value in values):
                        missing.append(f"{number} in {line}")
    return missing


def named(configs, text):
    """The longest of the configs that a text names."""
    stems = {config: re.escape(config.removesuffix(".yml")) for config in configs}
    matches = [c for c in configs if re.search(rf"(?<![\w-]){stems[c]}(?![\w-])", text)]
    return max(matches, key=len, default=None)


def supported(rows):
    """Each value and each duration of the rows, and their means and deviations over the seeds."""
    numbers, groups = [], defaultdict(list)
    for row in rows:
        for column in ("value", "minutes"):
            if row[column]:
                numbers.append(float(row[column]))
                if row["seed"].isdecimal():
                    for commit in ("any", row["commit"]):
                        groups[row["metric"], column, commit].append(float(row[column]))
    for values in groups.values():
        numbers.append(statistics.fmean(values))
        if len(values) > 1:
            numbers.append(statistics.stdev(values))
    return numbers


@functools.cache
def results_of(paper):
    with (paper / "results.csv").open(newline="") as file:
        return [row | {"paper": paper.name} for row in csv.DictReader(file)]


def test_results_have_the_same_columns():
    for paper in PAPERS:
        header = "config,seed,commit,metric,value,minutes,machine\n"
        assert text_of(paper / "results.csv").startswith(header), paper.name
        for row in results_of(paper):
            assert None not in row and None not in row.values(), row
            assert float(row["value"]) == float(row["value"]), row


def test_readme_numbers_are_in_results_csv():
    missing = []
    for folder in (ROOT, *PAPERS):
        readmes = [path for path in READMES if folder in PAPERS and folder in path.parents]
        readmes = readmes or [ROOT / "README.md"]
        rows = sum(map(results_of, [folder] if folder in PAPERS else PAPERS), [])
        texts = list(map(text_of, readmes))
        pattern = r"<!-- results -->.*^\|.*\d\.\d.*<!-- /results -->"
        assert any(re.search(pattern, text, re.DOTALL | re.M) for text in texts), folder
        for path, text in zip(readmes, texts, strict=True):
            missing += [f"{relative(path)}: {number}" for number in unsupported(text, rows)]
    assert_none(missing)


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_commits_of_results_are_in_the_history():
    if not (ROOT / ".git").exists() or git("rev-parse", "HEAD").returncode:
        pytest.skip("not a checkout of git")
    if git("rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        pytest.skip("the history of a shallow clone is incomplete")
    history = git("rev-list", "HEAD").stdout.split()
    offenders = set()
    for paper in PAPERS:
        commits = {row["commit"] for row in results_of(paper)}
        commits -= {"", *(c for c in commits if any(full.startswith(c) for full in history))}
        offenders |= {f"{relative(paper)}/results.csv: {commit}" for commit in commits}
    assert_none(offenders)


def test_number_without_row_is_reported():
    columns = ("paper", "config", "seed", "commit", "metric", "value", "minutes")
    rows = [
        ("x_tf", "a.yml", "0", "c0", "acc", "0.9", "1.5"),
        ("x_tf", "a.yml", "1", "c0", "acc", "0.95", "2.5"),
        ("x_tf", "a.yml", "published", "", "acc", "0.73", ""),
        ("x_tf", "a_long.yml", "0", "c0", "acc", "0.625", "1"),
        ("y_tf", "a.yml", "0", "c0", "acc", "0.4", "1"),
    ]
    rows = [dict(zip(columns, row, strict=True)) for row in rows]

    def missing(line, rows=rows[:4]):
        readme = f"0.1\n<!-- results -->\n|x|\n|-|\n{line}\n<!-- /results -->\n0.2"
        return [entry.split()[0] for entry in unsupported(readme, rows)]

    # mean 0.925; deviation sqrt(0.025^2 + 0.025^2) = 0.0354; mean minutes 2.0
    assert missing("| `a.yml` | 0.925 ± 0.035 | 0.95 | 0.73 | 2.0 |") == []
    assert missing("| a, 2 seeds | 0.926 | 0.93 | 0.625 | 10 of 10 |") == ["0.926", "0.625"]
    assert missing("| a_long | 0.63 | 0.9 |") == ["0.9"]
    assert missing("| a_long, not a | 0.63 | 0.9 |") == ["0.9"]
    assert missing("| a | 0.95 | 0.63 (a_long) | 1.0 |") == []
    assert missing("| a | 0.95 | 0.9, 0.95 (a_long) | 0.9 |") == ["0.95"]
    assert missing("| another | 0.9 |") == ["0.9"]
    assert missing("| [y](y_tf/README.md) | a | 0.95 | 0.4 |", rows) == ["0.95"]
