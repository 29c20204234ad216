"""Curves as they grow: TensorBoard events in the run folder, and a visdom server if asked for.

Neither is ever a reason for a training to stop.
"""

import logging
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

SECONDS = 2  # that a visdom server has for an answer


class Monitors:
    def __init__(self, folder: Path, first_step: int, visdom_port: int | None):
        """TensorBoard hides what it has from earlier of `first_step` and later."""
        self.board = _tensorboard(folder, first_step)
        self.visdom = None
        if visdom_port:
            try:
                self.visdom = _visdom(visdom_port, folder.name)
            except Exception as error:  # no package, no server, or one that speaks something else
                log.warning("no visdom on port %s, going on without it: %s", visdom_port, error)

    def show(self, name: str, value: float, step: int) -> None:
        if self.board:
            self.board.add_scalar(name, value, step)
        if self.visdom:
            try:
                self.visdom.line([value], [step], win=name, update="append", opts={"title": name})
            except Exception as error:
                log.warning("visdom does not answer, going on without it: %s", error)
                self.visdom = None

    def close(self) -> None:
        if self.board:
            self.board.close()


def _tensorboard(path: Path, first_step: int) -> Any:
    # tensorboardX imports torch where it finds it: seconds, and a crash beside TensorFlow
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        log.info("tensorboardX is not installed: no TensorBoard events")
        return None
    finally:
        if hide:
            del sys.modules["torch"]
    return SummaryWriter(str(path), purge_step=first_step or None)


def _visdom(port: int, env: str) -> Any:
    socket.create_connection(("localhost", port), timeout=SECONDS).close()
    from visdom import Visdom

    class Client(Visdom):
        def _handle_post(self, url: str, data: Any = None) -> str:
            # by itself it would wait for ever
            answer = self.session.post(url, data=data or {}, timeout=SECONDS)
            answer.raise_for_status()
            return answer.text

    logging.getLogger("visdom").setLevel(logging.ERROR)  # it warns of what it does without
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Client(port=port, env=env, raise_exceptions=True, use_incoming_socket=False)
