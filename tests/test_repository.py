"""Repository conventions: required files, their names and beginnings, links; configs and help."""

import ast
import re
import stat
import typing

import pytest
import yaml

from tests.entry_scripts import undocumented
from tests.repository import (
    CONFIGS,
    FILES,
    FOLDERS,
    PAPERS,
    PRELUDE,
    READMES,
    ROOT,
    assert_none,
    is_below,
    load,
    probe,
    relative,
    schemas_of,
    syntax_of,
    text_of,
)


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


def test_common_commands_have_help():
    """The commands of a paper are checked in its own suite: every_paper.Configs."""
    pages = probe()[1]
    missing = [f"{name} {option}" for name in pages for option in undocumented(pages[name])]
    assert {"common.bsds", "common.download", "common.report"} <= set(pages)
    assert_none(missing)
