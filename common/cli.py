"""One command line for every entry script: options in, a frozen config and a run folder out."""

import argparse
import dataclasses
import difflib
import inspect
import json
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jsonargparse

from common import UserError
from common.run import LOG_FORMAT, SIGNALS, Run, Stopped, read_yaml, stop_now


def main(function: Callable[[], object]) -> None:
    """Runs an entry script: mistakes become one line and exit code 2, signals a clean stop."""
    handler = logging.StreamHandler()
    handler.setFormatter(LOG_FORMAT)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for number in SIGNALS:
        signal.signal(number, stop_now)
    try:
        try:
            function()
        finally:
            sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except Stopped as stop:
        sys.exit(128 + stop.signum)
    except BrokenPipeError:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has read enough; the interpreter will flush once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            raise


def start(config_class: type, file: str, default: str = "digits.yml") -> tuple[Any, Run]:
    """The config and the new or resumed run folder of a train.py.

    config_class is a frozen dataclass of frozen dataclasses, the sections. A value comes from the
    class, over it the YAML, over it the command line. Raises UserError, and then writes nothing.
    """
    paper = Path(file).resolve().parent
    parser = _Parser(config_class, f"Train {paper.name}; its defaults, if no --config says else:")
    parser.add_argument("--config", metavar="FILE", help=f"in configs/, or a path ({default})")
    parser.add_argument("--tag", help="ends the name of the run folder (default)")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run folder")
    args, given = parser.read(sys.argv[1:])
    if args.get("resume"):
        return _resume(parser, paper, args, given)
    name = args.get("config") or default
    if not args.get("config") and "dataset.path" in given:
        name = "folder.yml" if (paper / "configs/folder.yml").exists() else default
    cfg = parser.build(parser.load(_config_file(name, paper)) | given)
    plain = json.loads(json.dumps(dataclasses.asdict(cfg)))  # tuples become lists
    return cfg, Run.create(paper, cfg.dataset.name, args.get("tag", "default"), plain)


def _resume(parser: "_Parser", paper: Path, args: dict, given: dict) -> tuple[Any, Run]:
    run = _open(args["resume"], paper)
    saved = parser.load(run.path / "config.yml")
    if "config" in args:
        given = parser.load(_config_file(args["config"], paper)) | given
    if "tag" in args:
        given, saved = given | {"tag": args["tag"]}, saved | {"tag": run.meta.get("tag")}
    for key, value in given.items():
        if value != saved.get(key):
            was = saved.get(key, "unset")
            raise UserError(f"--{key} {value}: a resumed run keeps its own value, {was}; omit it")
    if run.meta.get("status") == "done":
        raise UserError(f"{run.path} is already finished; for another run omit --resume")
    return parser.build({key: value for key, value in saved.items() if key != "tag"}), run


def open_run(
    config_class: type, file: str, description: str, **options: dict[str, Any]
) -> tuple[Any, Run, argparse.Namespace]:
    """The config, the run folder and the options of a pred.py or evaluate.py.

    options: name -> what `add_argument` takes, as in `input={"help": "a file or a folder"}`.
    Raises UserError when RUN is no run folder of this paper.
    """
    paper = Path(file).resolve().parent
    parser = _Parser(None, description)
    parser.add_argument("run", metavar="RUN", help="a run folder, also as DATASET/MMDD_TAG")
    for name, settings in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    args, _ = parser.read(sys.argv[1:])
    run = _open(args["run"], paper)
    checker = _Parser(config_class, description)
    cfg = checker.build(checker.load(run.path / "config.yml"))
    filled = {name: settings.get("default") for name, settings in options.items()} | args
    return cfg, run, argparse.Namespace(**filled)


def _open(name: str, paper: Path) -> Run:
    return Run.open(Path(name) if Path(name).exists() else paper / "runs" / name)


def _config_file(name: str, paper: Path) -> Path:
    shipped = paper / "configs" / name
    if shipped.is_file() or Path(name).is_file():
        return shipped if shipped.is_file() else Path(name)
    there = sorted(path.name for path in shipped.parent.glob("*.yml"))
    raise UserError(f"no config {name}, neither a path nor in {paper.name}/configs: {there}")


class _Parser(jsonargparse.ArgumentParser):
    """jsonargparse knows the types; keys, finite numbers and one-line errors are ours."""

    def __init__(self, config_class: type | None, description: str):
        super().__init__(description=description, exit_on_error=False, usage="%(prog)s [options]")
        self.config_class, self.hints, self.sections = config_class, {}, {}
        for section, cls in get_type_hints(config_class).items() if config_class else ():
            self.sections[section] = cls
            comments = dict(re.findall(r"^    (\w+):.*?  # (.+)$", inspect.getsource(cls), re.M))
            defaults = dataclasses.asdict(cls())
            for name, hint in get_type_hints(cls).items():
                key = f"{section}.{name}"
                self.hints[key] = hint
                text = f"{comments.get(name, '')} ({defaults[name]})".strip().replace("%", "%%")
                self.add_argument(f"--{key}", type=hint, default=argparse.SUPPRESS, help=text)

    def read(self, argv: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the command line gives: the script's own options, and the config's values."""
        names = [option for action in self._actions for option in action.option_strings]
        for word in argv:
            option = word.split("=")[0]
            if word.startswith("--") and option not in names:
                raise UserError(f"no option {option}; the nearest is {_nearest(option, names)}")
        try:
            values = dict(self.parse_args(argv, defaults=False).as_flat().__dict__)
        except argparse.ArgumentError as error:
            raise UserError(self._one_line(error)) from None
        given = {key: values.pop(key) for key in list(values) if key in self.hints}
        return {k: v for k, v in values.items() if v is not None}, self._checked(given)

    def load(self, path: Path) -> dict[str, Any]:
        """The values of a YAML file as {"section.key": value}."""
        values: dict[str, Any] = {}
        for section, content in read_yaml(path).items():
            if section in self.sections and not isinstance(content, dict | None):
                raise UserError(f"{path}: {section} is a section of keys, found {content!r}")
            if section in self.sections:
                values |= {f"{section}.{key}": value for key, value in (content or {}).items()}
            else:
                values[str(section)] = content
        for key in values:
            if key not in self.hints:
                nearest = _nearest(key, self.hints)
                raise UserError(f"{path}: no key {key}; the nearest is {nearest}")
        nested: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            section, _, name = key.partition(".")
            nested.setdefault(section, {})[name] = value
        try:
            values = dict(self.parse_object(nested, defaults=False).as_flat().__dict__)
            return self._checked(values)
        except argparse.ArgumentError as error:
            raise UserError(f"{path}: {self._one_line(error)}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def build(self, values: dict[str, Any]) -> Any:
        """The config; what a section refuses with a ValueError is the user's to mend."""
        try:
            built = {}
            for section, cls in self.sections.items():
                mine = {
                    k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{section}.")
                }
                built[section] = cls(**mine)
            return self.config_class(**built)
        except ValueError as error:
            raise UserError(str(error)) from None

    def _checked(self, values: dict[str, Any]) -> dict[str, Any]:
        for key, value in values.items():
            items = value if isinstance(value, list | tuple) else [value]
            if value is None and type(None) not in get_args(self.hints[key]):
                raise UserError(f"{key}: expected {_said(self.hints[key])}, found nothing")
            if any(isinstance(item, float) and not math.isfinite(item) for item in items):
                raise UserError(f"{key}: expected a finite number, found {value}")
        return values

    def _one_line(self, error: argparse.ArgumentError) -> str:
        key = re.search(r'Parser key "([\w.]+)"', str(error))
        if not key:
            return str(error).splitlines()[0]
        found = re.findall(r"(?:Got|Given) value: (.*)", str(error))
        return f"{key[1]}: expected {_said(self.hints[key[1]])}, found {' '.join(found)[:80]}"


def _nearest(name: str, names: Any) -> str:
    return difflib.get_close_matches(name, list(names), 1, 0.0)[0]


def _said(hint: Any) -> str:
    """A type as a reader says it."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (list, tuple):
        return f"a list such as [a, b] ({hint})"
    return hint.__name__ if isinstance(hint, type) else str(hint)
