import http.server
import socket
import threading
import time

from common.pytorch import hub


def test_server_with_any_response_is_reachable():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub.is_reachable(f"http://127.0.0.1:{server.server_port}")  # HTTP 501


def test_silent_and_closed_ports_are_not_reachable(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(hub, "TIMEOUT", 0.2)
        start = time.monotonic()
        assert not hub.is_reachable(f"http://127.0.0.1:{port}")
        assert time.monotonic() - start < 15
    assert not hub.is_reachable(f"http://127.0.0.1:{port}")  # closed now
