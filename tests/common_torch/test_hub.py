"""Whether a hub answers, in less than a second."""

import http.server
import socket
import threading
import time

from common.pytorch import hub


def test_a_server_that_answers_is_there_whatever_it_says():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub.is_reachable(f"http://127.0.0.1:{server.server_port}")


def test_nobody_and_one_who_says_nothing_are_not(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(hub, "SECONDS", 0.2)
        began = time.monotonic()
        assert not hub.is_reachable(f"http://127.0.0.1:{port}")
        assert time.monotonic() - began < 15
    assert not hub.is_reachable(f"http://127.0.0.1:{port}")  # closed now
