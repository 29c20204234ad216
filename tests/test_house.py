"""The rules of the house: what a reader of one paper's folder may expect of every other."""

import ast
import csv
import importlib
import importlib.metadata
import re
import stat
import statistics
import subprocess
import sys
import typing
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from common import config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAPERS = sorted(path for suffix in ("torch", "tf") for path in ROOT.glob(f"*_{suffix}"))
FOLDERS = [*PAPERS, *(ROOT / name for name in ("common", "tests", "benchmarks", ".ci"))]
AT_ROOT = "README.md CHANGELOG.md LICENSE Makefile pyproject.toml constraints.txt .gitignore"
FILES = [ROOT / name for name in (*AT_ROOT.split(), "data/README.md", "data/sources.yml")]
FILES += [
    path
    for folder in FOLDERS
    for path in folder.rglob("*")
    if path.is_file() and not {"runs", "__pycache__"} & set(path.relative_to(ROOT).parts)
]
CODE = [path for path in FILES if path.suffix == ".py"]
CONFIGS = [path for paper in PAPERS for path in sorted(paper.glob("configs/*.yml"))]
READMES = [folder / "README.md" for folder in (ROOT, *PAPERS)]
FRAMEWORKS = {
    "torch": {"torch", "torchvision", "timm", "triton"},
    "tf": {"tensorflow", "keras", "tf_keras"},
}
# optional packages whose module has another name, for where they are not installed
ELSEWHERE = {"faiss": ["faiss-cpu"]}
ENTRY = """
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])
"""


def name_of(path):
    return str(path.relative_to(ROOT))


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=name_of)


def imported(path):
    """Full names of all that a file imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(filter(None, [path.parent.name if node.level else "", node.module]))
            names |= {f"{start}.{alias.name}" for alias in node.names}
    return names


def top(names):
    return {name.split(".")[0] for name in names}


def test_there_is_a_paper():
    assert PAPERS


@each(PAPERS)
def test_a_paper_has_the_files_that_every_paper_has(path):
    files = "README.md results.csv __init__.py config.py train.py pred.py evaluate.py pipeline.sh"
    assert [name for name in files.split() if not (path / name).is_file()] == []
    assert list(path.glob("configs/*.yml"))
    assert list((ROOT / "tests" / path.name).glob("test_*.py"))


@each([path for path in CODE if path.parent == ROOT / "common"])
def test_common_imports_no_framework_and_no_paper(path):
    forbidden = set().union(*FRAMEWORKS.values(), (paper.name for paper in PAPERS))
    assert not top(imported(path)) & forbidden


@each([path for path in CODE if path.relative_to(ROOT).parts[0] in {p.name for p in PAPERS}])
def test_a_paper_imports_no_other_paper_and_no_other_framework(path):
    paper = path.relative_to(ROOT).parts[0]
    forbidden = {other.name for other in PAPERS if other.name != paper}
    for suffix, modules in FRAMEWORKS.items():
        if not paper.endswith(suffix):
            forbidden |= modules
    assert not top(imported(path)) & forbidden


@each([paper / "evaluate.py" for paper in PAPERS])
def test_evaluate_imports_numpy_common_and_its_config_only(path):
    paper = path.parent.name
    names = {name for name in imported(path) if top([name]) != {paper}}
    assert top(names) - sys.stdlib_module_names <= {"numpy", "common"}
    assert imported(path) - names <= {f"{paper}.config", f"{paper}.config.Config"}


@pytest.mark.parametrize(
    "modules",
    [
        [f"common.{path.stem}" for path in sorted((ROOT / "common").glob("*.py"))],
        *([paper.name, f"{paper.name}.evaluate"] for paper in PAPERS),
    ],
    ids=lambda modules: modules[-1],
)
def test_importing_these_loads_no_framework(modules):
    code = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
print(*set(sys.modules) & {set().union(*FRAMEWORKS.values())})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr


@each([paper / name for paper in PAPERS for name in ("train.py", "pred.py", "evaluate.py")])
def test_an_entry_script_begins_by_finding_the_root(path):
    statements = ast.parse(path.read_text()).body
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert list(map(ast.unparse, statements[1:4])) == list(map(ast.unparse, ast.parse(ENTRY).body))


@pytest.mark.parametrize("name", ["pipeline.sh", "multi_pipeline.sh"])
def test_a_script_is_executable_and_the_same_in_all_papers(name):
    scripts = [paper / name for paper in PAPERS if (paper / name).exists()]
    assert len({path.read_text() for path in scripts}) == 1
    assert all(path.stat().st_mode & stat.S_IXUSR for path in scripts)


@each(CONFIGS)
def test_a_shipped_config_loads_and_its_card_has_command_cost_and_score(path):
    values_of(path)
    command, cost, expect = path.read_text().splitlines()[:3]
    assert command.startswith("# ") and f"make {path.parents[1].name.rpartition('_')[0]}" in command
    assert cost.startswith("# cost: ") and expect.startswith("# expect: ")


@each(CONFIGS)
def test_a_shipped_config_says_only_what_differs_from_the_default(path):
    default = class_of(path)()
    for key, value in values_of(path).items():
        section, _, field = key.partition(".")
        same = value == getattr(getattr(default, section), field)
        # a run folder lies below the first, the second says which class the others are of
        assert not same or key in ("dataset.name", "model.name"), key


@each(PAPERS)
def test_every_choice_of_a_config_is_itself_in_yaml(path):
    choices, known = [], classes_of(path)
    for config_class in known.values() if isinstance(known, dict) else [known]:
        for section in typing.get_type_hints(config_class).values():
            for kind in typing.get_type_hints(section).values():
                choices += kind.__args__ if typing.get_origin(kind) is typing.Literal else ()
    assert choices and [yaml.safe_load(c) for c in choices] == choices  # "off" would be False


def classes_of(paper):
    """Its config class, or one for each of its models."""
    module = importlib.import_module(f"{paper.name}.config")
    return getattr(module, "CONFIGS", module.Config)


def class_of(path):
    return config.class_of(classes_of(path.parents[1]), path)


def values_of(path):
    """What a shipped config says, by key, after the whole of it was found valid."""
    schema = config.Schema(class_of(path))
    values = schema.load(path)
    schema.build(values)
    return values


def test_no_file_is_named_for_nothing():
    assert not [path for path in FILES if path.stem in ("utils", "util", "helpers", "misc")]


@each(FILES)
def test_no_text_names_a_registry_or_a_machine(path):
    # brackets keep the patterns from finding themselves
    pattern = (
        r"pypi[.]org|pythonhosted[.]|npmjs[.]|[-]-(extra-)?index-url|/(home|Users|root|work)/\w"
    )
    assert re.findall(pattern, path.read_text(errors="replace")) == []


@each(CODE)
def test_what_is_imported_is_a_declared_dependency(path, declared, packages):
    ours = {folder.name for folder in FOLDERS}
    for name in top(imported(path)) - sys.stdlib_module_names - ours:
        known = packages.get(name, ELSEWHERE.get(name, [name]))
        assert {plain(package) for package in known} & declared, name


def plain(package):
    return re.match(r"[\w.-]+", package)[0].lower().replace("_", "-")


@pytest.fixture(scope="module")
def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(map(plain, sum(project["optional-dependencies"].values(), project["dependencies"])))


@pytest.fixture(scope="module")
def packages():
    return importlib.metadata.packages_distributions()


# The numbers of a README stand in tables between <!-- results --> and <!-- /results -->. A row of
# such a table names its config, and each number with a decimal point in it is, rounded as shown, a
# value or the minutes of one of that config's rows in results.csv, or the mean or the standard
# deviation (n - 1) of those over the seeds. Published numbers and baselines are rows too; what they
# have in the place of a seed is no number.


def unproven(readme, rows):
    """The numbers of a README that have no row, each with its line."""
    found = []
    for block in re.findall(r"<!-- results -->(.*?)<!-- /results -->", readme, re.DOTALL):
        for line in filter(lambda line: line.startswith("|"), block.splitlines()):
            named = {row["config"] for row in rows if names(line, row["config"])}
            longest = max(named, key=len, default=None)
            proofs = proven([row for row in rows if row["config"] == longest])
            for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", line):
                half = 0.500001 * 10 ** -len(number.partition(".")[2])
                if all(abs(float(number) - proof) > half for proof in proofs):
                    found.append(f"{number} in {line}")
    return found


def names(line, config):
    return re.search(rf"(?<![\w-]){re.escape(config.removesuffix('.yml'))}(?![\w-])", line)


def proven(rows):
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


def rows_of(papers):
    rows = []
    for paper in papers:
        with (paper / "results.csv").open(newline="") as file:
            rows += csv.DictReader(file)
    return rows


@each([paper / "results.csv" for paper in PAPERS])
def test_results_have_the_columns_that_all_papers_have(path):
    rows = rows_of([path.parent])
    assert path.read_text().startswith("config,seed,commit,metric,value,minutes,machine\n")
    assert all(None not in row and None not in row.values() for row in rows)
    assert all(float(row["value"]) == float(row["value"]) for row in rows)


@each(READMES)
def test_every_number_in_a_readme_has_its_row_in_the_results(path):
    readme = path.read_text()
    assert re.search(r"<!-- results -->.*^\|.*\d\.\d.*<!-- /results -->", readme, re.DOTALL | re.M)
    assert unproven(readme, rows_of([path.parent] if path.parent in PAPERS else PAPERS)) == []


def test_a_number_without_its_row_is_found():
    columns = ("config", "seed", "commit", "metric", "value", "minutes")
    rows = [
        ("a.yml", "0", "c0", "acc", "0.9", "1.5"),
        ("a.yml", "1", "c0", "acc", "0.95", "2.5"),
        ("a.yml", "published", "", "acc", "0.73", ""),
        ("a_long.yml", "0", "c0", "acc", "0.625", "1"),
    ]
    rows = [dict(zip(columns, row, strict=True)) for row in rows]

    def found(line):
        readme = f"0.1\n<!-- results -->\n|x|\n|-|\n{line}\n<!-- /results -->\n0.2"
        return [found.split()[0] for found in unproven(readme, rows)]

    # mean 0.925; deviation sqrt(0.025^2 + 0.025^2) = 0.0354; mean minutes 2.0
    assert found("| `a.yml` | 0.925 ± 0.035 | 0.95 | 0.73 | 2.0 |") == []
    assert found("| a, 2 seeds | 0.926 | 0.93 | 0.625 | 10 of 10 |") == ["0.926", "0.625"]
    assert found("| a_long | 0.63 | 0.9 |") == ["0.9"]
    assert found("| another | 0.9 |") == ["0.9"]
