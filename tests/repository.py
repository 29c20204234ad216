"""The files of the repository, for the tests of its conventions."""

import ast
import functools
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

from common import config
from tests.entry_scripts import is_command

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


@functools.cache
def probe():
    """The offending imports, and the help of each command of common by its name."""
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


def assert_none(offenders):
    offenders = sorted(offenders)
    assert not offenders, "\n".join(["", *offenders])
