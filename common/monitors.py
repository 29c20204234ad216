"""Live curves: TensorBoard events in the run folder and, if asked for, a visdom server.

A monitor that fails never stops a training.
"""

import logging
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

TIMEOUT = 2  # seconds for a response of the visdom server


class Monitors:
    def __init__(self, folder: Path, first_step: int, visdom_port: int | None):
        """TensorBoard discards earlier events of first_step and of later steps."""
        self.board = _tensorboard(folder, first_step)
        self.visdom = None
        if visdom_port:
            try:
                self.visdom = _visdom(visdom_port, folder.name)
            except Exception as error:  # no package, no server, or a server of something else
                log.warning("no visdom on port %s, continuing without it: %s", visdom_port, error)

    def show(self, name: str, value: float, step: int) -> None:
        if self.board:
            self.board.add_scalar(name, value, step)
        if self.visdom:
            try:
                self.visdom.line([value], [step], win=name, update="append", opts={"title": name})
            except Exception as error:
                log.warning("visdom does not respond, continuing without it: %s", error)
                self.visdom = None

    def close(self) -> None:
        if self.board:
            self.board.close()


def _tensorboard(folder: Path, first_step: int) -> Any:
    # tensorboardX imports torch if it is installed: that takes seconds, and crashes TensorFlow
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
    return SummaryWriter(str(folder), purge_step=first_step or None)


def _visdom(port: int, env: str) -> Any:
    socket.create_connection(("localhost", port), timeout=TIMEOUT).close()
    from visdom import Visdom

    class Client(Visdom):
        def _handle_post(self, url: str, data: Any = None) -> str:
            # visdom's own method has no timeout
            response = self.session.post(url, data=data or {}, timeout=TIMEOUT)
            response.raise_for_status()
            return response.text

    logging.getLogger("visdom").setLevel(logging.ERROR)  # no warnings of optional packages
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Client(port=port, env=env, raise_exceptions=True, use_incoming_socket=False)
