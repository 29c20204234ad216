"""Whether a hub of weights can be reached, found out before its own client tries for a minute."""

import contextlib
import threading

SECONDS = 0.8  # that it has to answer


def is_reachable(address: str) -> bool:
    """Whether a server says anything within SECONDS, the look-up of its name included."""
    import requests

    found = []

    def ask() -> None:
        with contextlib.suppress(requests.RequestException):
            found.append(requests.head(address, timeout=SECONDS))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return bool(found)
