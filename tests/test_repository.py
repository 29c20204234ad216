"""Repository conventions.

Four groups of tests, each below its heading: Layout (required files, names, links), Imports (which
modules may import what), Configs and help, and READMEs (numbers that must be in results.csv). The
functions above them read the files.
"""

import ast
import csv
import functools
import graphlib
import importlib
import importlib.metadata
import json
import os
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
from tests.entry_scripts import is_command, undocumented

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAPERS = sorted(path for suffix in ("torch", "tf") for path in ROOT.glob(f"*_{suffix}"))
NAMES = {paper.name for paper in PAPERS}
FOLDERS = [*PAPERS, *(ROOT / name for name in ("common", "tests", "benchmarks", ".ci"))]
TOP_LEVEL = (
    "README.md CONTRIBUTING.md CHANGELOG.md LICENSE Makefile pyproject.toml constraints.txt"
    " .gitignore data/README.md data/sources.yml"
)
FILES = [ROOT / name for name in TOP_LEVEL.split()] + [
    path
    for folder in FOLDERS
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not {"runs", "__pycache__"} & set(path.relative_to(ROOT).parts)
]
CODE = [path for path in FILES if path.suffix == ".py"]
CONFIGS = [path for paper in PAPERS for path in sorted(paper.glob("configs/*.yml"))]
READMES = [path for path in FILES if path.name == "README.md"]
FRAMEWORKS = {
    "torch": {"torch", "torchvision", "timm", "triton"},
    "tf": {"tensorflow", "keras", "tf_keras"},
}
# code shared by the papers of one framework
SHARED = {"torch": "common.pytorch", "tf": "common.tf"}
PRELUDE = """
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)
"""


def relative(path):
    return path.relative_to(ROOT).as_posix()


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def text_of(path):
    return path.read_text("utf-8", errors="replace")


@functools.cache
def syntax_of(path):
    return ast.parse(text_of(path))


@functools.cache
def imports_of(path):
    """Full names of everything that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(syntax_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            start = ".".join([*package, *filter(None, [node.module])])
            names |= {f"{start}.{alias.name}" for alias in node.names}
    return names


def is_below(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def framework_of(path):
    """The key in FRAMEWORKS of what a file may import, another string where it is neither."""
    folder, *rest = path.relative_to(ROOT).parts
    if folder == "common":
        return next((key for key in SHARED if is_below(module_name(path), [SHARED[key]])), "")
    return (rest[0] if folder == "tests" else folder).rpartition("_")[2]


@functools.cache
def schemas_of(paper):
    """model.name -> Schema; for a paper with a single config class the only key is None."""
    module = importlib.import_module(f"{paper.name}.config")
    classes = module.CONFIGS if hasattr(module, "CONFIGS") else {None: module.Config}
    return {name: config.Schema(config_class) for name, config_class in classes.items()}


@functools.cache
def load(path):
    """The schema and the values of a shipped config, both valid."""
    schemas = schemas_of(path.parents[1])
    name = config.model_name(path) or next(iter(schemas))
    schema = schemas.get(name) or schemas[None]
    values = schema.load(path)
    schema.build(values)
    return schema, values


def assert_none(offenders):
    offenders = sorted(offenders)
    assert not offenders, "\n".join(["", *offenders])


# Layout


def test_papers_have_the_required_files():
    names = "README.md results.csv __init__.py config.py train.py pred.py evaluate.py pipeline.sh"
    missing = [
        f"{p.name}/{name}" for p in PAPERS for name in names.split() if not (p / name).is_file()
    ]
    missing += [f"{p.name}/configs" for p in PAPERS if not list(p.glob("configs/*.yml"))]
    missing += [
        f"tests/{p.name}" for p in PAPERS if not list(ROOT.glob(f"tests/{p.name}/test_*.py"))
    ]
    assert PAPERS
    assert_none(missing)


def test_entry_scripts_start_with_docstring_and_path_prelude():
    prelude = list(map(ast.unparse, ast.parse(PRELUDE).body))
    scripts = [p / name for p in PAPERS for name in ("train.py", "pred.py", "evaluate.py")]
    offenders = [
        relative(path)
        for path in scripts
        if not ast.get_docstring(syntax_of(path))
        or list(map(ast.unparse, syntax_of(path).body[1:6])) != prelude
    ]
    assert_none(offenders)


@pytest.mark.parametrize("name", ["pipeline.sh", "multi_pipeline.sh"])
def test_pipelines_are_executable_and_identical(name):
    scripts = [paper / name for paper in PAPERS if (paper / name).exists()]
    assert len({text_of(path) for path in scripts}) == 1
    assert_none(relative(path) for path in scripts if not path.stat().st_mode & stat.S_IXUSR)


def test_file_names_are_specific():
    generic = {"utils", "util", "helpers", "misc"}
    assert_none(relative(path) for path in FILES if path.stem in generic)


def test_no_file_names_a_registry_or_a_machine():
    # brackets keep the pattern from matching itself
    pattern = (
        r"pypi[.]org|pythonhosted[.]|npmjs[.]|[-]-(extra-)?index-url|/(home|Users|root|work)/\w"
    )
    matches = {relative(path): re.search(pattern, text_of(path)) for path in FILES}
    assert_none(f"{path}: {match[0]}" for path, match in matches.items() if match)


def test_documented_links_configs_and_modules_exist():
    missing = []
    for path in [*READMES, ROOT / "CONTRIBUTING.md", *CONFIGS]:
        text = text_of(path)
        for link in re.findall(r"\]\(([^):#]+)\)", text):
            if not (path.parent / link).exists():
                missing.append(f"{relative(path)}: {link}")
        for paper, name in re.findall(r"make (\w+) [^\n#]*CONFIG=([\w.]+)", text):
            if not list(ROOT.glob(f"{paper}_t*/configs/{name}")):
                missing.append(f"{relative(path)}: {paper} has no config {name}")
        for name in re.findall(r"python -m ([\w.]+)", text):
            module = ROOT.joinpath(*name.split("."))
            is_ours = is_below(name, [folder.name for folder in FOLDERS])
            if is_ours and not any(p.exists() for p in (module, module.with_suffix(".py"))):
                missing.append(f"{relative(path)}: python -m {name}")
    assert_none(missing)


# Imports


def test_imports_stay_within_their_layer():
    """common -> no paper; a paper -> common; both import at most the framework of their folder."""
    offenders = []
    for path in CODE:
        folders = path.relative_to(ROOT).parts[:-1]
        if folders[0] == "benchmarks":
            continue
        forbidden = set() if folders == ("tests",) else NAMES - set(folders)
        for key, packages in FRAMEWORKS.items():
            if framework_of(path) != key:
                forbidden |= packages
                if folders[0] == "common" or NAMES & set(folders):
                    forbidden |= {SHARED[key]}
        names = [name for name in imports_of(path) if is_below(name, forbidden)]
        offenders += [f"{relative(path)}: {name}" for name in names]
    assert_none(offenders)


def test_evaluate_imports_only_numpy_common_and_its_paper():
    offenders = []
    for paper in PAPERS:
        allowed = {"numpy", "common", paper.name} | sys.stdlib_module_names
        names = {name.split(".")[0] for name in imports_of(paper / "evaluate.py")} - allowed
        offenders += [f"{paper.name}/evaluate.py: {name}" for name in sorted(names)]
    assert_none(offenders)


@pytest.mark.parametrize("depth", [2, None], ids=["packages", "modules"])
def test_common_has_no_import_cycle(depth):
    modules = {module_name(path): path for path in CODE if path.parts[len(ROOT.parts)] == "common"}
    graph = defaultdict(set)
    for name, path in modules.items():
        for target in imports_of(path):
            while target and target not in modules:  # `from module import function`
                target = target.rpartition(".")[0]
            graph[cut(name, depth)].add(cut(target, depth))
    for name, targets in graph.items():
        targets -= {name, "common", ""}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def cut(name, depth):
    return ".".join(name.split(".")[:depth])


# In one fresh process: which frameworks each module that should need none has loaded, and what
# `python -m MODULE --help` prints.
PROBE = """
import contextlib, importlib, io, json, runpy, sys

modules, commands, frameworks = json.loads(sys.argv[1])
loaded, pages = [], {}
for name in modules:
    importlib.import_module(name)
    new = sorted(set(frameworks) & set(sys.modules))
    loaded += [f"{name} imports {framework}" for framework in new]
    frameworks = set(frameworks) - set(new)
for name in commands:
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as page, contextlib.suppress(SystemExit):
        runpy.run_module(name, run_name="__main__")
    pages[name] = page.getvalue()
print(json.dumps([loaded, pages]))
"""


@pytest.fixture(scope="module")
def probe():
    modules = [path for path in CODE if path.relative_to(ROOT).parts[0] == "common"]
    modules = [p for p in modules if p.stem != "__main__" and framework_of(p) not in FRAMEWORKS]
    for paper in PAPERS:
        modules += [paper / "__init__.py", paper / "config.py", *paper.rglob("evaluate.py")]
    commands = [
        module_name(path).removesuffix(".__main__")
        for path in CODE
        if path.relative_to(ROOT).parts[0] == "common" and is_command(text_of(path))
    ]
    frameworks = sorted(set().union(*FRAMEWORKS.values()))
    arguments = json.dumps([list(map(module_name, modules)), commands, frameworks])
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE, arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "1000"},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


def test_framework_free_modules_load_no_framework(probe):
    assert_none(probe[0])


def test_imported_packages_are_declared():
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    requirements = sum(project["optional-dependencies"].values(), project["dependencies"])
    declared = set(map(normalized, requirements))
    distributions = importlib.metadata.packages_distributions()
    ours = {folder.name for folder in FOLDERS} | sys.stdlib_module_names
    offenders = []
    for path in CODE:
        for name in {name.split(".")[0] for name in imports_of(path)} - ours:
            candidates = distributions.get(name, [name])
            if not set(map(normalized, candidates)) & declared:
                offenders.append(f"{relative(path)}: {name}")
    assert_none(offenders)


def names_of_extra(extra):
    """The normalized packages of an extra, and of the extras of this project that it names."""
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    names = set()
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(rf"{project['name']}\[([\w,-]+)\]", requirement)
        parts = own[1].split(",") if own else []
        names |= set().union(*map(names_of_extra, parts)) if own else {normalized(requirement)}
    return names


def test_extras_have_the_packages_of_their_device_and_never_two_in_one_folder():
    devices = {"cpu": {"faiss-cpu", "tensorflow-cpu"}, "cuda": {"faiss-gpu", "tensorflow"}}
    assert names_of_extra("cpu") & set().union(*devices.values()) == devices["cpu"]
    assert names_of_extra("cuda") & set().union(*devices.values()) == devices["cuda"]
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    for extra in project["optional-dependencies"]:
        for one, other in zip(*map(sorted, devices.values()), strict=True):
            assert not {one, other} <= names_of_extra(extra), extra
    makefile = text_of(ROOT / "Makefile")
    for device, other in (("cpu", "cuda"), ("cuda", "cpu")):
        names = " ".join(sorted(devices[other]))
        assert f"CONFLICTS_{device} := {names}\n" in makefile


def test_no_test_is_skipped_for_want_of_a_package_of_an_extra():
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    requirements = sum(project["optional-dependencies"].values(), project["dependencies"])
    declared = set(map(normalized, requirements))
    distributions = importlib.metadata.packages_distributions()
    offenders = []
    for path in CODE:
        for name in re.findall(r"importorskip\(\s*['\"](\w+)", text_of(path)):
            if set(map(normalized, distributions.get(name, [name]))) & declared:
                offenders.append(f"{relative(path)}: {name}")
    assert_none(offenders)


def normalized(requirement):
    """The name of a package as installers compare it."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


# Configs and help


def test_shipped_configs_are_valid_and_have_a_header():
    offenders = []
    for path in CONFIGS:
        load(path)
        command, cost, expect = text_of(path).splitlines()[:3]
        if not (
            re.match(rf"# .*make {path.parents[1].name.rpartition('_')[0]}\b", command)
            and cost.startswith("# cost: ")
            and expect.startswith("# expect: ")
        ):
            offenders.append(relative(path))
    assert_none(offenders)


def test_shipped_configs_do_not_repeat_defaults():
    offenders = []
    for path in CONFIGS:
        schema, values = load(path)
        default = schema.config_class()
        for key, value in values.items():
            section, _, name = key.partition(".")
            # dataset.name names the folder of the runs, model.name selects the config class
            if key in ("dataset.name", "model.name"):
                continue
            if value == getattr(getattr(default, section), name):
                offenders.append(f"{relative(path)}: {key}")
    assert_none(offenders)


def test_choices_are_strings_in_yaml():
    """For example, `off` would be read as False."""
    schemas = [schema for paper in PAPERS for schema in schemas_of(paper).values()]
    hints = [hint for schema in schemas for hint in schema.types.values()]
    choices = {
        c for hint in hints if typing.get_origin(hint) is typing.Literal for c in hint.__args__
    }
    assert choices and [choice for choice in choices if yaml.safe_load(choice) != choice] == []


def test_config_keys_have_help():
    missing = [
        f"{paper.name} {key}"
        for paper in PAPERS
        for schema in schemas_of(paper).values()
        for key in schema.types
        if not schema.help[key].rpartition("(default: ")[0].strip()
    ]
    assert_none(missing)


def test_common_commands_have_help(probe):
    """The commands of a paper are checked in its own suite: every_paper.Configs."""
    pages = probe[1]
    missing = [f"{name} {option}" for name in pages for option in undocumented(pages[name])]
    assert {"common.bsds", "common.download", "common.report"} <= set(pages)
    assert_none(missing)


# READMEs


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
