"""One command line for every entry script: options in, a frozen config and a run folder out."""

import argparse
import errno
import logging
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from common import UserError
from common.config import (
    Classes,
    Schema,
    as_plain,
    choose_model,
    class_of,
    find_config,
    model_name,
    nearest,
)
from common.run import LOG_FORMAT, SIGNALS, Run, Stopped, stop_now

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
        sys.stderr.write(f"error: {error}: free some disk space, then continue with --resume\n")
        sys.exit(2)


def _reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads, as after `| head`."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how pools end their workers


def start(
    classes: Classes, file: str, default: str | dict[str, str] = "digits.yml"
) -> tuple[Any, Run]:
    """The config and the new or resumed run folder of a train.py.

    Precedence: command line, then YAML file, then defaults of the class. default: name of the
    default config, or one for each model. Raises UserError, and has then written nothing.
    """
    paper, argv = Path(file).resolve().parent, sys.argv[1:]
    model, config_class = _model_of(classes, paper, argv)
    default = default if isinstance(default, str) else default[model]
    schema = Schema(config_class)
    parser = Parser(description=f"Train {paper.name} into a new run folder.")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"name of a file in configs/, or a path (default: {default})",
    )
    parser.add_argument("--tag", help="last part of the run folder's name (default: default)")
    parser.add_argument("--resume", metavar="RUN", help="run folder to resume (default: none)")
    for section in schema.sections:
        group = parser.add_argument_group(section)
        for key in schema.types:
            if key.startswith(f"{section}."):
                text = schema.help[key].replace("%", "%%")  # argparse formats it
                group.add_argument(f"--{key}", metavar=schema.metavar(key), help=text)
    args = parser.parse_known(argv)
    given = {key: schema.parse(key, args[key]) for key in schema.types if key in args}
    if "resume" in args:
        return _resume(schema, paper, args, given)
    if "dataset.path" in given:
        names = [f"{model}_folder.yml", "folder.yml"]
        default = next((name for name in names if (paper / "configs" / name).exists()), default)
    path = find_config(args.get("config", default), paper)
    cfg = schema.build(_absolute(schema.load(path) | given))
    return cfg, Run.create(paper, cfg.dataset.name, args.get("tag", "default"), as_plain(cfg))


def open_run(
    classes: Classes, file: str, description: str, **options: dict[str, Any]
) -> tuple[Any, Run, argparse.Namespace]:
    """The config, the run folder and the options of a pred.py or evaluate.py.

    options: name -> keyword arguments of `add_argument`, as in {"help": "a file or a folder"};
    options that are not given have their default, or None. Raises UserError if RUN is not a run
    folder of this paper.
    """
    paper = Path(file).resolve().parent
    parser = Parser(description=description)
    about = "run folder: a path or DATASET/MMDD_TAG (default: the newest)"
    parser.add_argument("run", metavar="RUN", nargs="?", help=about)
    for name, keywords in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    args = parser.parse_known(sys.argv[1:])
    run = _open(args.pop("run"), paper) if "run" in args else _newest(paper)
    path = run.path / "config.yml"
    schema = Schema(class_of(classes, path))
    cfg = schema.build(schema.load(path))
    defaults = {
        name: keywords.get("default", False if keywords.get("action") == "store_true" else None)
        for name, keywords in options.items()
    }
    return cfg, run, argparse.Namespace(**defaults | args)


class Parser(argparse.ArgumentParser):
    """argparse with errors as a UserError of one line, and without abbreviated options."""

    def __init__(self, **keywords: Any):
        super().__init__(usage="%(prog)s [options]", allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see {self.prog} --help")

    def parse_known(self, argv: list[str]) -> dict[str, Any]:
        """The options that are given, by name; the most similar one is named for an unknown one."""
        known = self._option_string_actions
        for option in (word.split("=")[0] for word in argv if word.startswith("--")):
            if option not in known:
                raise UserError(f"no option {option}; did you mean {nearest(option, known)}?")
        for action in self._actions:
            action.default = argparse.SUPPRESS
        return vars(self.parse_args(argv))


def _model_of(classes: Classes, paper: Path, argv: list[str]) -> tuple[str | None, type]:
    """The model and its config class: named on the command line, in the config, or by the run."""
    if not isinstance(classes, dict):
        return None, classes
    parser = Parser(add_help=False)
    for option in ("--model.name", "--config", "--resume"):
        parser.add_argument(option)
    args = parser.parse_known_args(argv)[0]
    model = getattr(args, "model.name")
    if model is None and args.config is not None:
        model = model_name(find_config(args.config, paper))
    elif model is None and args.resume is not None:
        model = model_name(_open(args.resume, paper).path / "config.yml")
    return choose_model(classes, model)


def _resume(
    schema: Schema, paper: Path, args: dict[str, Any], given: dict[str, Any]
) -> tuple[Any, Run]:
    run = _open(args["resume"], paper)
    saved = schema.load(run.path / "config.yml")
    cfg = schema.build(saved)
    if "config" in args:
        given = schema.load(find_config(args["config"], paper)) | given
    if "tag" in args:
        given |= {"tag": args["tag"]}
    for key, value in _absolute(given).items():
        kept = (saved | run.meta).get(key)
        if value != kept:
            raise UserError(f"cannot change {key} to {value} when resuming: the run has {kept}")
    if run.meta.get("status") == "done":
        raise UserError(f"{run.path} is already finished: start a new run without --resume")
    return cfg, run


def _absolute(values: dict[str, Any]) -> dict[str, Any]:
    """Full paths, as pred.py and --resume may be called from another folder."""
    names = ("dataset.path", "dataset.root", "dataset.scribbles", "model.trunk", "model.weights")
    return values | {key: os.path.abspath(values[key]) for key in names if values.get(key)}


# Options of a pred.py for images that the run was not trained on, see `output_folder`.
NEW_IMAGES: dict[str, dict[str, Any]] = {
    "input": {
        "metavar": "FILE_OR_FOLDER",
        "help": "new images; default: those of the training",
    },
    "out": {
        "metavar": "DIR",
        "help": "output folder; default: RUN, or RUN/predictions_NAME with --input",
    },
}
# What to do when the images of the training have changed, for Run.check_dataset in a pred.py.
PASS_AS_INPUT = "pass these images with --input"


def output_folder(run: Run, args: argparse.Namespace) -> Path:
    """Where a pred.py with NEW_IMAGES writes."""
    if args.out:
        return Path(args.out)
    if args.input is None:
        return run.path
    return run.path / f"predictions_{Path(args.input).resolve().stem}"


def _open(name: str, paper: Path) -> Run:
    return Run.open(Path(name) if Path(name).exists() else paper / "runs" / name)


def _newest(paper: Path) -> Run:
    """The run of a paper that was started last; raises UserError if there is none."""
    configs = paper.glob("runs/*/*/config.yml")  # written once, when a run starts
    started = sorted(configs, key=lambda path: (path.stat().st_mtime_ns, path))
    if not started:
        raise UserError(f"{paper.name} has no run yet: start one with train.py")
    log.info("run folder %s, the newest", started[-1].parent)
    return Run.open(started[-1].parent)
