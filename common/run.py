"""Run folders: config, log, metrics and checkpoints, written so that any run can be resumed."""

import fcntl
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import re
import shlex
import shutil
import signal
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
from common.config import read_yaml
from common.monitors import Monitors

log = logging.getLogger(__name__)
LOG_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
SECONDS_BETWEEN_CHECKPOINTS = 30.0


class Stopped(BaseException):
    """Raised by SIGTERM and Ctrl-C; a BaseException so that no `except Exception` catches it."""

    def __init__(self, signum: int):
        self.signum = signum


def stop_now(signum: int, frame: FrameType | None = None) -> None:
    """Signal handler outside of training loops."""
    log.warning("%s: stopping", signal.Signals(signum).name)
    raise Stopped(signum)


class Checkpoint(NamedTuple):
    path: Path
    step: int
    progress: dict[str, Any]


class Run:
    """A run folder. Loading data and training belong in a `with run:` block.

    Inside the block the folder is locked and the log goes to train.log too. At its end the status
    becomes done (the folder is then printed on stdout), stopped or failed. A UserError before the
    first step deletes the folder of a new run.
    """

    def __init__(self, path: Path, config: dict[str, Any], meta: dict[str, Any]):
        self.path, self.config, self.meta = path, config, meta
        self.stopping = False  # check after each step: if set, checkpoint(), then stop()
        self._signum = signal.SIGTERM
        self._is_empty = False
        self._metrics = self._monitors = None
        self._first_step = 0
        self._saved_at = time.monotonic()

    @classmethod
    def create(cls, paper: Path, dataset: str, tag: str, config: dict[str, Any]) -> "Run":
        """Creates PAPER/runs/DATASET/MMDD_TAG, with a suffix _2, _3, ... if it exists."""
        for name, option in ((dataset, "dataset.name"), (tag, "tag")):
            if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name in (".", ".."):
                raise UserError(
                    f"--{option} {name!r} cannot name a folder: use only A-Z a-z 0-9 . _ -"
                )
        now = datetime.now().astimezone()
        first = path = paper.resolve() / "runs" / dataset / f"{now:%m%d}_{tag}"
        suffix = 1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while not _create(path):
                suffix += 1
                path = first.with_name(f"{first.name}_{suffix}")
            _write_atomically(path / "config.yml", yaml.safe_dump(config, sort_keys=False))
            run = cls(path, config, {})
            run._is_empty = True
            run.note(
                argv=sys.argv,
                tag=tag,
                year=now.year,  # the folder's name has month and day
                date=now.isoformat(timespec="seconds"),
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
        """An existing run folder; raises UserError if `path` is not one."""
        if not (path / "config.yml").is_file():
            raise UserError(f"{path} is not a run folder: it has no config.yml")
        try:
            meta = json.loads((path / "meta.json").read_text())
        except (OSError, ValueError):
            raise UserError(f"{path / 'meta.json'} is missing or damaged") from None
        return cls(path.resolve(), read_yaml(path / "config.yml"), meta)

    def __enter__(self) -> "Run":
        try:
            self._lock = open(self.path / ".lock", "w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends
        except BlockingIOError:
            self._lock.close()
            raise UserError(
                f"another process is training in {self.path}: wait or stop it"
            ) from None
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None
        self._seconds_before = self.meta.get("seconds", 0.0)
        self._began = time.perf_counter()
        self._handler = logging.FileHandler(self.path / "train.log", encoding="utf-8")
        self._handler.setFormatter(LOG_FORMAT)
        logging.getLogger().addHandler(self._handler)
        self._clean()
        loaded = [name for name in ("torch", "tensorflow", "keras") if name in sys.modules]
        versions = {name: sys.modules[name].__version__ for name in loaded}
        versions |= {"python": platform.python_version()}
        versions |= {"numpy": importlib.metadata.version("numpy")}
        self.note(
            status="running",
            pid=os.getpid(),
            host=platform.platform(),
            threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
            versions=versions,
        )
        log.info("run folder %s", self.path)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        status = "done" if kind is None else "stopped" if kind is Stopped else "failed"
        if status == "stopped":
            command = shlex.join(["python", sys.argv[0], "--resume", str(self.path)])
            log.warning("resume with: %s", command)
        elif kind is UserError:
            self._handler.stream.write(f"error: {error}\n")
        elif status == "failed":
            traceback.print_exception(error, file=self._handler.stream)
        self._close_metrics()
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()
        if kind is UserError and self._is_empty:
            shutil.rmtree(self.path)
            with suppress(OSError):  # not empty if there are other runs
                self.path.parent.rmdir()
                self.path.parent.parent.rmdir()
        else:
            self.note(status=status, seconds=self._seconds())
        self._lock.close()
        if status == "done":
            print(self.path, flush=True)  # noqa: T201

    def _seconds(self) -> float:
        return round(self._seconds_before + time.perf_counter() - self._began, 1)

    # metadata and metrics

    def note(self, **values: Any) -> None:
        """Merges values into meta.json."""
        self.meta |= values
        self.write_json("meta.json", self.meta)

    def check_dataset(self, checksum: str, advice: str = "start a new run") -> None:
        """Raises UserError if the checksum is not the one noted when the run began."""
        if self.meta.get("dataset_checksum", checksum) != checksum:
            raise UserError(f"the dataset changed since training (checksum mismatch): {advice}")

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Replaces a file of the run folder atomically; raises UserError for NaN and infinity."""
        try:
            text = json.dumps(values, indent=2, allow_nan=False, default=_to_json)
        except ValueError:
            raise UserError(f"a value of {name} is NaN or infinite: not written") from None
        try:
            _write_atomically(self.path / name, text + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path / name}: {error.strerror}") from None

    @property
    def images(self) -> Path:
        (self.path / "images").mkdir(exist_ok=True)
        return self.path / "images"

    def log(self, split: str, step: int, **values: Any) -> None:
        """Appends a line to metrics.jsonl and sends the numbers to TensorBoard and visdom.

        Raises UserError if one is NaN or infinite.
        """
        values = {name: _to_json(value) for name, value in values.items()}
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                paths = self._paths()
                last = f"last good checkpoint: {paths[-1]}" if paths else "no checkpoint"
                raise UserError(f"{split} {name} became {value} at step {step}; {last}")
        if self._metrics is None:
            self._metrics = open(self.path / "metrics.jsonl", "a", buffering=1, encoding="utf-8")
            port = self.config.get("training", {}).get("visdom_port")
            self._monitors = Monitors(self.path, self._first_step, port)
        self._is_empty = False
        self._metrics.write(json.dumps({"split": split, "step": step} | values) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self._monitors.show(f"{split}/{name}", value, step)

    def rewind(self, step: int = -1) -> None:
        """Deletes the lines of metrics.jsonl after `step`, as a resumed run logs them again."""
        self._close_metrics()
        self._first_step = step + 1
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            _write_atomically(path, "".join(line for line in lines if _step_of(line) <= step))

    def _close_metrics(self) -> None:
        for opened in (self._metrics, self._monitors):
            if opened:
                opened.close()
        self._metrics = self._monitors = None

    # the training loop

    def epochs(self, first: int, n: int, unit: str = "epoch") -> Iterator[int]:
        """Epochs (or another unit) `first` to n - 1, with a progress bar.

        Meanwhile the first SIGTERM or Ctrl-C only sets `stopping`; the second stops at once.
        """
        before = {number: signal.signal(number, self._request_stop) for number in SIGNALS}
        try:
            with logging_redirect_tqdm():
                yield from tqdm(range(first, n), initial=first, total=n, unit=unit, disable=None)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request_stop(self, signum: int, frame: FrameType | None) -> None:
        if self.stopping:
            stop_now(signum)
        self.stopping, self._signum = True, signum
        log.warning("%s: stopping after this step", signal.Signals(signum).name)

    def stop(self) -> None:
        """Ends a run that is `stopping`; call it after `checkpoint`."""
        raise Stopped(self._signum)

    # checkpoints

    def checkpoint(
        self, step: int, files: dict[str, Callable[[Path], object]], **progress: Any
    ) -> None:
        """Saves checkpoints/STEP atomically and keeps the newest two.

        files: name -> function that writes the file at a path; progress: JSON values that
        `latest_checkpoint` returns.
        """
        folder = self.path / "checkpoints"
        target, temporary = folder / f"{step:09d}", folder / ".tmp"
        self._clean()
        temporary.mkdir(parents=True)
        for name, write in files.items():
            write(temporary / name)
        (temporary / "progress.json").write_text(json.dumps(progress, default=_to_json))
        manifest = {path.name: _sha256(path) for path in temporary.iterdir()}
        (temporary / "manifest.json").write_text(json.dumps(manifest))
        for path in [*temporary.iterdir(), temporary]:
            _sync(path)
        if target.exists():
            target.rename(folder / ".tmp_replaced")
        temporary.rename(target)
        _sync(folder)
        self._saved_at = time.monotonic()
        self._is_empty = False
        # later ones are left if the run was resumed from an older checkpoint
        older = [path for path in self._paths() if path < target]
        later = [path for path in self._paths() if path > target]
        for path in older[:-1] + later:
            shutil.rmtree(path)
        self._clean()
        self.note(seconds=self._seconds())

    def is_checkpoint_due(self) -> bool:
        """Whether the last checkpoint (or the start) is SECONDS_BETWEEN_CHECKPOINTS ago."""
        return time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest intact checkpoint, None without any; raises UserError if all are damaged."""
        for path in reversed(self._paths()):
            try:
                for name, digest in json.loads((path / "manifest.json").read_text()).items():
                    if _sha256(path / name) != digest:
                        raise ValueError(f"checksum of {name} does not match")
                progress = json.loads((path / "progress.json").read_text())
                return Checkpoint(path, int(path.name), progress)
            except (OSError, ValueError, AttributeError) as error:
                log.warning("%s is damaged, trying the previous checkpoint: %s", path, error)
        if self._paths():
            raise UserError(
                f"no intact checkpoint, {self._paths()[-1]} is damaged: start a new run"
            )
        return None

    def require_checkpoint(self) -> Checkpoint:
        """The newest intact checkpoint; raises UserError if there is none."""
        checkpoint = self.latest_checkpoint()
        if checkpoint is None:
            raise UserError(
                f"{self.path} has no checkpoint yet: continue it with train.py --resume {self.path}"
            )
        return checkpoint

    def _paths(self) -> list[Path]:
        return sorted(self.path.glob("checkpoints/" + "[0-9]" * 9))

    def _clean(self) -> None:
        for path in self.path.glob("checkpoints/.tmp*"):
            shutil.rmtree(path)


def _create(path: Path) -> bool:
    with suppress(FileExistsError):
        path.mkdir()
        return True
    return False


def _write_atomically(path: Path, text: str) -> None:
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


def _to_json(value: Any) -> Any:
    """Numbers and arrays of any framework as JSON types."""
    if hasattr(value, "numpy") and not hasattr(value, "tolist"):
        value = value.numpy()  # a tensor of TensorFlow
    return value.tolist() if hasattr(value, "tolist") else value


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # cut off: the process was killed while writing
        return math.inf


def _git(folder: Path) -> dict[str, Any]:
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None}
    commit, _, dirty = done.stdout.strip().partition("-")
    return {"commit": commit or None, "dirty": bool(dirty) if commit else None}
