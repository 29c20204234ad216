"""Live curves: TensorBoard events in the run folder and, if asked for, a visdom server.

A monitor that fails never stops a training.
"""

import logging
import sys
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
                self.visdom = _Visdom(visdom_port, folder.name)
            except Exception as error:  # no server, or a server of something else
                log.warning("no visdom on port %s, continuing without it: %s", visdom_port, error)

    def show(self, name: str, value: float, step: int) -> None:
        if self.board:
            self.board.add_scalar(name, value, step)
        if self.visdom:
            try:
                self.visdom.show(name, value, step)
            except Exception as error:
                log.warning("visdom does not respond, continuing without it: %s", error)
                self.visdom = None

    def close(self) -> None:
        if self.board:
            self.board.close()
        if self.visdom:
            self.visdom.session.close()


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


class _Visdom:
    """Lines on a visdom server of this machine, by its HTTP protocol, without the package visdom.

    Raises requests.RequestException if no server responds, ValueError for one of something else.
    """

    def __init__(self, port: int, environment: str):
        import requests

        self.url, self.environment = f"http://localhost:{port}", environment
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy
        if self._post("win_exists", win="") != "false":
            raise ValueError("the server is not one of visdom")

    def show(self, name: str, value: float, step: int) -> None:
        """Appends a point to the line of this name, in a window of its own."""
        data = [{"x": [step], "y": [value], "name": "1", "type": "scatter", "mode": "lines"}]
        if self._post("win_exists", win=name) == "true":
            self._post("update", win=name, data=data, append=True)
        else:
            options = {"title": name}
            self._post("events", win=name, data=data, layout=options, opts=options)

    def _post(self, endpoint: str, **message: Any) -> str:
        message["eid"] = self.environment
        response = self.session.post(f"{self.url}/{endpoint}", json=message, timeout=TIMEOUT)
        response.raise_for_status()
        return response.text
