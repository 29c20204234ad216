"""One run folder: created once, a kill at any moment loses little, resumed exactly."""

import fcntl
import hashlib
import json
import logging
import math
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import yaml
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common import UserError

log = logging.getLogger(__name__)
LOG_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The run was asked to stop; no `except Exception` on the way may swallow it."""

    def __init__(self, signum: int):
        self.signum = signum


def stop_now(signum: int, frame: FrameType | None = None) -> None:
    """Signal handler outside of the epochs."""
    log.warning("stopped by %s", signal.Signals(signum).name)
    raise Stopped(signum)


class Checkpoint(NamedTuple):
    path: Path
    step: int
    progress: dict[str, Any]


class Run:
    """A run folder, see HOUSE in the README; `with run:` around everything that trains.

    Inside of the `with` the folder is locked and train.log is written. It ends as done (and the
    folder is printed on stdout), stopped or failed; a run refused before its first step is removed.
    """

    def __init__(self, path: Path, config: dict[str, Any], meta: dict[str, Any]):
        self.path, self.config, self.meta = path, config, meta
        self.stopping = False
        self._signum = signal.SIGTERM
        self._metrics = self._board = self._visdom = None
        self._first_step = 0

    @classmethod
    def create(cls, paper: Path, dataset: str, tag: str, config: dict[str, Any]) -> "Run":
        """Makes PAPER/runs/DATASET/MMDD_TAG, or the first free one of _2, _3 ... after it."""
        for name in (dataset, tag):
            if not re.fullmatch(r"[\w.-]+", name, re.ASCII) or name.startswith("."):
                raise UserError(f"{name!r} cannot name a folder: use A-Z a-z 0-9 . _ -")
        today = datetime.now().astimezone()
        parent = paper.resolve() / "runs" / dataset
        path = parent / f"{today:%m%d}_{tag}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            suffix = 1
            while not _make(path):
                suffix += 1
                path = parent / f"{today:%m%d}_{tag}_{suffix}"
            run = cls(path, config, {})
            _replace(path / "config.yml", yaml.safe_dump(config, sort_keys=False))
            run.note(
                argv=sys.argv,
                tag=tag,
                year=today.year,
                date=today.isoformat(timespec="seconds"),
                git=_git(paper),
                device=None,
                seconds=0.0,
                status="running",
            )
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """An existing run folder; raises UserError where there is none."""
        if not (path / "config.yml").is_file():
            raise UserError(f"{path} is no run folder: it has no config.yml")
        try:
            meta = json.loads((path / "meta.json").read_text())
        except (OSError, ValueError):
            raise UserError(f"{path / 'meta.json'} is absent or no JSON") from None
        return cls(path.resolve(), read_yaml(path / "config.yml"), meta)

    # what is written

    def note(self, **values: Any) -> None:
        """Merges values into meta.json."""
        self.meta |= values
        self.write_json("meta.json", self.meta)

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Writes a file of the run folder in one step; raises UserError for NaN and infinity."""
        try:
            _replace(
                self.path / name,
                json.dumps(values, indent=2, allow_nan=False, default=_plain) + "\n",
            )
        except ValueError:
            raise UserError(f"{name} would hold a NaN or an infinity, nothing written") from None

    @property
    def images(self) -> Path:
        (self.path / "images").mkdir(exist_ok=True)
        return self.path / "images"

    def log(self, split: str, step: int, **values: Any) -> None:
        """Appends one line to metrics.jsonl and shows its numbers in TensorBoard and visdom.

        Raises UserError when a value is NaN or infinite: nothing after it would be worth keeping.
        """
        values = {name: _plain(value) for name, value in values.items()}
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                last = self._checkpoints()[-1:]
                kept = f"last checkpoint: {last[0]}" if last else "there is no checkpoint yet"
                raise UserError(f"{split} {name} became {value} at step {step}, stopped; {kept}")
        if self._metrics is None:
            self._metrics = open(self.path / "metrics.jsonl", "a", buffering=1, encoding="utf-8")
            self._board, self._visdom = _tensorboard(self), _visdom(self)
        self._metrics.write(json.dumps({"split": split, "step": step} | values) + "\n")
        numbers = {f"{split}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
        for name, value in numbers.items():
            if self._board:
                self._board.add_scalar(name, value, step)
        if self._visdom:
            self._to_visdom(numbers, step)

    def _to_visdom(self, numbers: dict[str, float], step: int) -> None:
        try:
            for name, value in numbers.items():
                self._visdom.line([value], [step], win=name, update="append", opts={"title": name})
        except Exception as error:  # whatever a monitor does wrong, the run goes on
            log.warning("visdom is gone, going on without it: %s", error)
            self._visdom = None

    def rewind(self, step: int = -1) -> None:
        """Drops the metrics after `step`: resuming writes them again."""
        if self._metrics:
            self._metrics.close()
            self._metrics = None
        self._first_step = step + 1
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            _replace(path, "".join(line for line in lines if _step(line) <= step))

    # the training loop

    def epochs(self, first: int, n: int) -> Iterator[int]:
        """Epochs `first` .. n - 1 with a progress bar.

        Meanwhile a first SIGTERM or Ctrl-C only sets `stopping`; a second one stops at once.
        """
        before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        try:
            with logging_redirect_tqdm():
                yield from tqdm(range(first, n), initial=first, total=n, unit="epoch", disable=None)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self.stopping:
            stop_now(signum)
        self.stopping, self._signum = True, signum
        log.warning("%s: stopping after this step", signal.Signals(signum).name)

    def stop(self) -> None:
        """Ends a run that was asked to stop, once its checkpoint is written."""
        raise Stopped(self._signum)

    # checkpoints

    def checkpoint(
        self, step: int, files: dict[str, Callable[[Path], object]], **progress: Any
    ) -> None:
        """Saves checkpoints/STEP with one rename and keeps the newest two.

        files: name -> function that writes to the path it is given. The keyword values come back
        as `Checkpoint.progress`.
        """
        folder = self.path / "checkpoints"
        target, temporary = folder / f"{step:09d}", folder / f".tmp{step}"
        self._clean()
        temporary.mkdir(parents=True)
        for name, write in files.items():
            write(temporary / name)
        (temporary / "progress.json").write_text(json.dumps(progress, default=_plain))
        manifest = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps(manifest))
        for path in [*temporary.iterdir(), temporary]:
            _sync(path)
        if target.exists():
            target.rename(folder / ".tmp")
        temporary.rename(target)
        _sync(folder)
        # a later step is the abandoned future of a run that fell back to an older checkpoint
        others = [path for path in self._checkpoints() if path != target]
        for path in others[:-1] + [path for path in others[-1:] if int(path.name) > step]:
            shutil.rmtree(path)
        self._clean()
        self.note(seconds=self._seconds())

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest intact checkpoint; raises UserError when there are some and all are broken."""
        paths = self._checkpoints()
        for path in reversed(paths):
            try:
                manifest = json.loads((path / "manifest.json").read_text())
                for name, digest in manifest.items():
                    if _sha256(path / name) != digest:
                        raise ValueError(f"{name} is not what was saved")
                progress = json.loads((path / "progress.json").read_text())
                return Checkpoint(path, int(path.name), progress)
            except (OSError, ValueError, AttributeError) as error:
                log.warning("checkpoint %s is damaged, trying the one before: %s", path, error)
        if paths:
            raise UserError(f"no intact checkpoint: {', '.join(map(str, paths))}; train again")
        return None

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("checkpoints/" + "[0-9]" * 9))

    def _clean(self) -> None:
        for path in self.path.glob("checkpoints/.tmp*"):
            shutil.rmtree(path)

    # from begin to end

    def _seconds(self) -> float:
        return round(self._before + time.perf_counter() - self._began, 1)

    def __enter__(self) -> "Run":
        self._lock = open(self.path / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # dies with its process
        except BlockingIOError:
            self._lock.close()
            raise UserError(f"another process is training in {self.path}") from None
        self._before, self._began = self.meta.get("seconds", 0.0), time.perf_counter()
        self._handler = logging.FileHandler(self.path / "train.log", encoding="utf-8")
        self._handler.setFormatter(LOG_FORMAT)
        logging.getLogger().addHandler(self._handler)
        self._clean()
        names = ("numpy", "torch", "tensorflow", "keras")
        loaded = {name: sys.modules[name].__version__ for name in names if name in sys.modules}
        self.note(
            status="running",
            pid=os.getpid(),
            host=platform.platform(),
            threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
            versions={"python": platform.python_version()} | loaded,
        )
        log.info("run folder %s", self.path)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        status = "done" if kind is None else "stopped" if kind is Stopped else "failed"
        if status == "stopped":
            command = shlex.join([sys.argv[0], "--resume", str(self.path)])
            log.warning("continue with: python %s", command)
        elif status == "failed":
            self._handler.stream.write(f"error: {error}\n")
            if kind is not UserError:
                traceback.print_exception(error, file=self._handler.stream)
        if self._board:
            self._board.close()
        if self._metrics:
            self._metrics.close()
            self._metrics = None
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()
        if kind is UserError and not (self.path / "metrics.jsonl").exists():
            shutil.rmtree(self.path)
        else:
            self.note(status=status, seconds=self._seconds())
        self._lock.close()
        if status == "done":
            print(self.path, flush=True)  # noqa: T201 - the one line on stdout


# files


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a UTF-8 file, with or without a byte order mark; no tag runs code."""
    try:
        values = yaml.safe_load(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{line}: not readable as YAML: {reason}") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{path}: expected sections such as `training:`, found {found}")
    return values


def _make(path: Path) -> bool:
    with suppress(FileExistsError):
        path.mkdir()
        return True
    return False


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(value: Any) -> Any:
    """Scalars and arrays of any framework as what JSON knows."""
    return value.tolist() if hasattr(value, "tolist") else value


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # half a line: the process was killed in the middle
        return math.inf


# the world around


def _git(folder: Path) -> dict[str, Any]:
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None}
    commit, _, dirty = answer.stdout.strip().partition("-")
    return {"commit": commit or None, "dirty": bool(dirty)}


def _tensorboard(run: Run) -> Any:
    # tensorboardX imports torch where it finds it: seconds, and a crash beside TensorFlow
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        log.info("tensorboardX is not installed: no TensorBoard events")
        return None
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter(str(run.path), purge_step=run._first_step or None)


def _visdom(run: Run) -> Any:
    port = run.config.get("training", {}).get("visdom_port")
    if not port:
        return None
    try:
        socket.create_connection(("localhost", port), timeout=2).close()
        from visdom import Visdom

        return Visdom(port=port, env=run.path.name, raise_exceptions=True)
    except Exception as error:  # absent package, absent server, or one that speaks something else
        log.warning("no visdom on port %s, going on without it: %s", port, error)
        return None
