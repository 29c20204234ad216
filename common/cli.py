"""Command lines of all entry scripts: from options to a config and a run folder."""

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

from common import UserError, startup
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

# Config keys that are paths.
PATHS = ("dataset.path", "dataset.root", "dataset.scribbles", "model.trunk", "model.weights")
# Option --root of commands that load or download datasets by name.
ROOT = {"metavar": "DIR", "help": "folder of the datasets (default: $DATA_ROOT, else data/)"}
# Options of a pred.py for new images, see `output_folder`.
NEW_IMAGES: dict[str, dict[str, Any]] = {
    "input": {
        "metavar": "FILE_OR_FOLDER",
        "help": "new images to predict (default: the training images)",
    },
    "out": {
        "metavar": "DIR",
        "help": "output folder (default: RUN, or RUN/predictions_NAME with --input)",
    },
}
# What to do when the training images have changed, for Run.check_dataset in a pred.py.
PASS_AS_INPUT = "pass these images with --input"


def main(function: Callable[[], object]) -> None:
    """Runs an entry script; a UserError becomes one line and exit code 2, a signal 128 + number."""
    handler = logging.StreamHandler()
    handler.setFormatter(LOG_FORMAT)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for number in SIGNALS:
        signal.signal(number, stop_now)
    os.register_at_fork(after_in_child=_reset_signals)
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
        if not _is_stdout_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes stdout at exit
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.stderr.write(f"error: {error}: free some disk space, then continue with --resume\n")
        sys.exit(2)


def _is_stdout_closed() -> bool:
    """Whether stdout is a pipe whose reader has exited, as in `train.py | head`."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _reset_signals() -> None:
    """In forked workers: the parent handles Ctrl-C, which all processes receive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how multiprocessing ends its workers


def start(
    classes: Classes, file: str, default: str | dict[str, str] = "digits.yml"
) -> tuple[Any, Run]:
    """The config and the new or resumed run folder of a train.py.

    The command line takes precedence over the YAML file, and that over the defaults of the class.
    default: name of the default YAML file, or one for each model. Raises UserError before anything
    is written.
    """
    paper, argv = Path(file).resolve().parent, sys.argv[1:]
    startup.require_framework(paper.name)
    model, config_class = _model_of(classes, paper, argv)
    default = default if isinstance(default, str) else default[model]
    schema = Schema(config_class)
    parser = Parser(
        description=f"Train {paper.name} in a new run folder, or resume a run.",
        argument_default=argparse.SUPPRESS,  # to tell which options were given
    )
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
    args = vars(parser.parse_args(argv))
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

    options: name -> keyword arguments of `add_argument`, such as {"help": "a file or a folder"}.
    Raises UserError if RUN is not a run folder of this paper.
    """
    paper = Path(file).resolve().parent
    parser = Parser("%(prog)s [RUN] [options]", description=description)
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        help="run folder, a path or DATASET/MMDD_TAG (default: the newest)",
    )
    for name, keywords in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    args = parser.parse_args()
    name = vars(args).pop("run")
    run = _newest(paper) if name is None else _open(name, paper)
    path = run.path / "config.yml"
    schema = Schema(class_of(classes, path))
    return schema.build(schema.load(path)), run, args


class Parser(argparse.ArgumentParser):
    """argparse that raises UserError, suggests similar options and accepts no abbreviations."""

    def __init__(self, usage: str = "%(prog)s [options]", **keywords: Any):
        super().__init__(usage=usage, allow_abbrev=False, **keywords)

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:
        args = sys.argv[1:] if args is None else args
        known = self._option_string_actions
        for option in (word.split("=")[0] for word in args if word.startswith("--")):
            if option != "--" and option not in known:
                raise UserError(f"no option {option}; did you mean {nearest(option, known)}?")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see {self.prog} --help")


def _model_of(classes: Classes, paper: Path, argv: list[str]) -> tuple[str | None, type]:
    """The model and its config class, from the options, the YAML file or the run to resume."""
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
    """Makes paths absolute, as pred.py and --resume may be called from another folder."""
    return values | {key: os.path.abspath(values[key]) for key in PATHS if values.get(key)}


def require_positive(args: argparse.Namespace, *names: str) -> None:
    """Raises UserError if one of these options is given and below 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}: expected 1 or more")


def output_folder(run: Run, args: argparse.Namespace) -> Path:
    """The folder that a pred.py with the options NEW_IMAGES writes to."""
    if args.out:
        return Path(args.out)
    if args.input is None:
        return run.path
    return run.path / f"predictions_{Path(args.input).resolve().stem}"


def _open(name: str, paper: Path) -> Run:
    for path in (Path(name), paper / "runs" / name):
        if path.exists():
            return Run.open(path)
    expected = f"expected a run folder: a path, or DATASET/NAME in {paper.name}/runs"
    raise UserError(f"{name} does not exist: {expected}")


def _newest(paper: Path) -> Run:
    """The run of a paper that was created last; raises UserError if there is none."""
    configs = paper.glob("runs/*/*/config.yml")  # written only when a run is created
    started = sorted(configs, key=lambda path: (path.stat().st_mtime_ns, path))
    if not started:
        raise UserError(f"{paper.name} has no run yet: start one with train.py")
    log.info("run folder %s, the newest", started[-1].parent)
    return Run.open(started[-1].parent)
