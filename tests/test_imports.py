"""Which modules may import what, and which packages the extras install."""

import graphlib
import importlib
import importlib.metadata
import re
import sys
from collections import defaultdict

import pytest

from tests.repository import (
    CODE,
    FOLDERS,
    FRAMEWORKS,
    NAMES,
    PAPERS,
    ROOT,
    SHARED,
    assert_none,
    framework_of,
    imports_of,
    is_below,
    module_name,
    probe,
    relative,
    text_of,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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


def test_framework_free_modules_load_no_framework():
    assert_none(probe()[0])


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
