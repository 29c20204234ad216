"""One command line for every entry script: options in, a frozen config and a run folder out."""

import argparse
import dataclasses
import difflib
import errno
import inspect
import json
import logging
import math
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jsonargparse

from common import UserError
from common.run import LOG_FORMAT, SIGNALS, Run, Stopped, read_yaml, stop_now

log = logging.getLogger(__name__)


def main(function: Callable[[], object]) -> None:
    """Runs an entry script: a mistake ends in one line and exit code 2, a signal cleanly."""
    handler = logging.StreamHandler()
    handler.setFormatter(LOG_FORMAT)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for number in SIGNALS:
        signal.signal(number, stop_now)
    os.register_at_fork(after_in_child=_leave_signals_to_the_parent)
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
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.stderr.write(f"error: {error}: make room; a run in training goes on with --resume\n")
        sys.exit(2)


def _reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads, as after `| head`."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how pools end their workers


# A frozen dataclass of frozen dataclasses, its sections; of several models, the one of each
# model.name, of which the first serves where nobody names any.
Classes = type | dict[str, type]


def start(
    classes: Classes, file: str, default: str | dict[str, str] = "digits.yml"
) -> tuple[Any, Run]:
    """The config and the new or resumed run folder of a train.py.

    The command line goes before the YAML, the YAML before the class. default: the config's name, or
    that of each model. Raises UserError, and has then written nothing.
    """
    paper = Path(file).resolve().parent
    model, config_class = _choose(classes, paper)
    default = default if isinstance(default, str) else default[model]
    parser = _Parser(f"Train {paper.name} into a new run folder.")
    parser.add("--config", metavar="FILE", help=f"name in configs/ or path; default {default}")
    parser.add("--tag", help='ends the name of the run folder; default "default"')
    parser.add("--resume", metavar="RUN", help="go on with this run folder")
    parser.add_config(config_class)
    own, given = parser.read(sys.argv[1:])
    if "resume" in own:
        return _resume(parser, paper, own, given)
    if "dataset.path" in given:
        names = [f"{model}_folder.yml", "folder.yml"]
        default = next((name for name in names if (paper / "configs" / name).exists()), default)
    name = own.get("config", default)
    cfg = parser.build(_absolute(parser.load(_config_file(name, paper)) | given))
    plain = json.loads(json.dumps(dataclasses.asdict(cfg)))  # tuples become lists, as in YAML
    return cfg, Run.create(paper, cfg.dataset.name, own.get("tag", "default"), plain)


def load_config(classes: Classes, file: str, name: str) -> Any:
    """The config of a YAML file, a name in the paper's configs/ or a path; raises UserError."""
    path = _config_file(name, Path(file).resolve().parent)
    parser = _Parser("")
    parser.add_config(class_of(classes, path))
    return parser.build(parser.load(path))


def class_of(classes: Classes, path: Path) -> type:
    """The config class of the model that a YAML file names; raises UserError."""
    return _pick(classes, _named(path) if isinstance(classes, dict) else None)[1]


def _choose(classes: Classes, paper: Path) -> tuple[str | None, type]:
    """The model and its config class: as the command line names it, the config, or the run."""
    if not isinstance(classes, dict):
        return None, classes
    options: dict[str, str] = {}
    for word, following in pairwise([*sys.argv[1:], ""]):
        name, equals, value = word.partition("=")
        options[name] = value if equals else following
    model = options.get("--model.name")
    if model is None and "--config" in options:
        model = _named(_config_file(options["--config"], paper))
    elif model is None and "--resume" in options:
        model = _named(_open(options["--resume"], paper).path / "config.yml")
    return _pick(classes, model)


def _named(path: Path) -> str | None:
    """What a YAML file says of model.name."""
    section = read_yaml(path).get("model")
    name = section.get("name") if isinstance(section, dict) else None
    return name if isinstance(name, str) else None  # another type is refused with its key


def _pick(classes: Classes, model: str | None) -> tuple[str | None, type]:
    if not isinstance(classes, dict):
        return None, classes
    model = next(iter(classes)) if model is None else model
    if model not in classes:
        raise UserError(f"model.name: expected one of {', '.join(classes)}, found {model}")
    return model, classes[model]


def make_config(config_class: type, values: dict[str, Any]) -> Any:
    """The config of values by "section.key", and of defaults; raises UserError."""
    parser = _Parser("")
    parser.add_config(config_class)
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in parser.hints:
            raise UserError(f"no key {key}; did you mean {_nearest(key, parser.hints)}?")
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return parser.build(parser._typed(parser.parser.parse_object, sections))


def _resume(parser: "_Parser", paper: Path, own: dict, given: dict) -> tuple[Any, Run]:
    run = _open(own["resume"], paper)
    saved = parser.load(run.path / "config.yml")
    cfg = parser.build(saved)
    if "config" in own:
        given = parser.load(_config_file(own["config"], paper)) | given
    if "tag" in own:
        given |= {"tag": own["tag"]}
    for key, value in _absolute(given).items():
        kept = (saved | run.meta).get(key)
        if value != kept:
            raise UserError(f"--{key} {value}: the resumed run has {kept} and keeps it")
    if run.meta.get("status") == "done":
        raise UserError(f"{run.path} is already finished; without --resume a new run starts")
    return cfg, run


def _absolute(values: dict[str, Any]) -> dict[str, Any]:
    """Paths in full: pred.py and --resume may be called from another folder."""
    names = ("dataset.path", "dataset.root", "dataset.scribbles", "model.trunk", "model.weights")
    return values | {key: os.path.abspath(values[key]) for key in names if values.get(key)}


def open_run(
    classes: Classes, file: str, description: str, **options: dict[str, Any]
) -> tuple[Any, Run, argparse.Namespace]:
    """The config, the run folder and the own options of a pred.py or evaluate.py.

    options: name -> keywords of `add_argument`, as in `input={"help": "a file or a folder"}`; one
    that is not given is None or its default. Raises UserError if RUN is no run of this paper.
    """
    paper = Path(file).resolve().parent
    parser = _Parser(description)
    about = "run folder, a path or DATASET/MMDD_TAG; default: the newest"
    parser.add("run", metavar="RUN", nargs="?", help=about)
    for name, keywords in options.items():
        parser.add(f"--{name.replace('_', '-')}", **keywords)
    own, _ = parser.read(sys.argv[1:])
    run = _open(own.pop("run"), paper) if "run" in own else _newest(paper)
    checker = _Parser(description)
    checker.add_config(class_of(classes, run.path / "config.yml"))
    cfg = checker.build(checker.load(run.path / "config.yml"))
    defaults = {name: keywords.get("default") for name, keywords in options.items()}
    return cfg, run, argparse.Namespace(**defaults | own)


def _open(name: str, paper: Path) -> Run:
    return Run.open(Path(name) if Path(name).exists() else paper / "runs" / name)


def _newest(paper: Path) -> Run:
    """The run of a paper that began last; raises UserError if there is none."""
    configs = paper.glob("runs/*/*/config.yml")  # written once, when a run begins
    found = sorted(configs, key=lambda path: (path.stat().st_mtime_ns, path))
    if not found:
        raise UserError(f"{paper.name} has no run yet: train.py makes one")
    log.info("run folder %s, the newest", found[-1].parent)
    return Run.open(found[-1].parent)


def _config_file(name: str, paper: Path) -> Path:
    for path in (paper / "configs" / name, Path(name)):
        if path.is_file():
            return path
    shipped = sorted(path.name for path in (paper / "configs").glob("*.yml"))
    raise UserError(f"no config {name}; it is a path or one of {', '.join(shipped)}")


class _Parser:
    """jsonargparse knows types; which keys there are and how an error reads is decided here."""

    def __init__(self, description: str):
        self.parser = jsonargparse.ArgumentParser(
            description=description, usage="%(prog)s [options]", exit_on_error=False
        )
        self.names = ["-h", "--help"]
        self.sections: dict[str, type] = {}
        self.hints: dict[str, Any] = {}  # of "section.key"

    def add(self, name: str, **keywords: Any) -> None:
        self.names.append(name)
        self.parser.add_argument(name, **keywords | {"default": argparse.SUPPRESS})

    def add_config(self, config_class: type) -> None:
        self.config_class = config_class
        self.sections = get_type_hints(config_class)
        for section, cls in self.sections.items():
            comments = dict(re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(cls), re.M))
            for key, hint in get_type_hints(cls).items():
                self.hints[f"{section}.{key}"] = hint
                text = f"{comments.get(key, '')}; default {getattr(cls(), key)!r}".lstrip("; ")
                self.add(f"--{section}.{key}", type=hint, help=text)

    def read(self, argv: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the command line gives: options of the script itself, and values of the config."""
        for option in (word.split("=")[0] for word in argv if word.startswith("--")):
            if option not in self.names:
                raise UserError(f"no option {option}; did you mean {_nearest(option, self.names)}?")
        values = self._typed(self.parser.parse_args, argv)
        given = {key: values.pop(key) for key in self.hints if key in values}
        return values, given

    def load(self, path: Path) -> dict[str, Any]:
        """The values of a YAML file, as {"section.key": value}."""
        content = read_yaml(path)
        for section, values in content.items():
            if section in self.sections and not isinstance(values, dict | None):
                raise UserError(f"{path}: {section} is a section of keys, found {values!r}")
            names = values if isinstance(values, dict) else []
            keys = [f"{section}.{name}" for name in names]
            for key in keys if section in self.sections else keys or [section]:
                if key not in self.hints:
                    nearest = _nearest(str(key), self.hints)
                    raise UserError(f"{path}: no key {key}; did you mean {nearest}?")
        try:
            sections = {name: values for name, values in content.items() if values}
            return self._typed(self.parser.parse_object, sections)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def build(self, values: dict[str, Any]) -> Any:
        """The config. What a section refuses with a ValueError is the user's to mend."""
        sections: dict[str, dict[str, Any]] = {section: {} for section in self.sections}
        for key, value in values.items():
            section, _, name = key.partition(".")
            sections[section][name] = value
        try:
            return self.config_class(**{s: self.sections[s](**v) for s, v in sections.items()})
        except ValueError as error:
            raise UserError(str(error)) from None

    def _typed(self, parse: Callable[..., Any], source: Any) -> dict[str, Any]:
        try:
            values = dict(parse(source, defaults=False).items())
        except argparse.ArgumentError as error:
            key = re.search(r'Parser key "([\w.]+)"', str(error))
            if not key or key[1] not in self.hints:
                raise UserError(" ".join(str(error).split())) from None
            found = re.findall(r"(?:Got|Given) value: (.*)", str(error))[-1]
            raise _wrong(key[1], self.hints[key[1]], found) from None
        for key, hint in self.hints.items():  # jsonargparse lets both of these pass
            value = values.get(key, 0)
            items = value if isinstance(value, list | tuple) else [value]
            if value is None and type(None) not in get_args(hint):
                raise _wrong(key, hint, "nothing")
            if any(isinstance(item, float) and not math.isfinite(item) for item in items):
                raise _wrong(key, "a finite number", value)
        return values


def _wrong(key: str, expected: Any, found: Any) -> UserError:
    return UserError(f"{key}: expected {_said(expected)}, found {str(found)[:80]}")


def _said(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (list, tuple):
        return f"a list [...] of {_said(get_args(hint)[0])}"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _nearest(name: str, names: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(names), 1, 0.0)[0]
