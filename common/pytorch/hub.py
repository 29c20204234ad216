"""Checks whether a hub of weights is reachable, as its own client retries for a minute."""

import contextlib
import threading

TIMEOUT = 0.8  # seconds, including the DNS lookup


def is_reachable(url: str) -> bool:
    """Whether a server sends any response within TIMEOUT."""
    import requests

    responses = []

    def send_request() -> None:
        with contextlib.suppress(requests.RequestException):
            responses.append(requests.head(url, timeout=TIMEOUT))

    thread = threading.Thread(target=send_request, daemon=True)  # DNS lookups have no timeout
    thread.start()
    thread.join(TIMEOUT)
    return bool(responses)
