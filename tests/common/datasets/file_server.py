"""A file server that can misbehave, and its files."""

import hashlib
import http.server
import io
import tarfile
import zipfile

CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path is the behavior; server.requests has all (path, Range)."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers["Range"]))
        kind = self.path.split("/")[1]
        if kind == "status":
            return self.respond(b"gone", status=int(self.path.split("/")[2]))
        if kind == "page":
            return self.respond(b"\n<!DOCTYPE html><title>Quota exceeded</title>")
        if kind == "held":  # until the test releases it
            self.server.requested.set()
            self.server.released.wait(30)
        content = self.server.files.get(self.path, CONTENT)
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        if kind == "norange":
            start = 0
        if start >= len(content) and start:
            return self.respond(b"", status=416)
        rest = content[start:]
        sent = rest[: len(rest) // 2] if kind == "cut" else rest
        self.respond(sent, 206 if start else 200, None if kind == "nolength" else len(rest))

    def respond(self, sent, status=200, length=-1):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", len(sent) if length < 0 else length)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args):
        pass


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def tar(*members):
    """A tar of members (name, content) or TarInfo."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


def zipped(*members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return packed.getvalue()
