"""A web server on 127.0.0.1 that breaks off, as mirrors do, and a registry of images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "anybody's"


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path; breaks off each answer after ``limit`` bytes, as long as set.

    ``asked`` has, for each request, its path and its range. ``gate`` holds answers back. After
    ``gone_after`` answers (0: never) there is no file any more.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.limit: int | None = None
        self.breaks = 1 << 30
        self.gone_after = 0
        self.token = ""
        self.gate = threading.Event()
        self.gate.set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET, whole or from a byte on."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        path = self.path.partition("?")[0]
        wanted = self.headers.get("Range", "")
        server.asked.append((path, wanted))
        assert server.gate.wait(60)
        if path == "/token":
            self._send(200, json.dumps({"token": TOKEN}).encode(), {})
        elif server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            realm = f'Bearer realm="{server.url("/token")}",service="test",scope="pull"'
            self._send(401, b"{}", {"WWW-Authenticate": realm})
        elif path not in server.files or self._is_gone():
            self._send(404, b"{}", {})
        else:
            self._send_file(server.files[path], wanted)

    def _is_gone(self) -> bool:
        left = self.server.gone_after
        self.server.gone_after = max(0, left - 1) if left != 1 else -1
        return left < 0

    def _send_file(self, content: bytes, wanted: str) -> None:
        mark = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start and self.headers.get("If-Range", mark) != mark:
            start = 0
        status = 206 if start else 200
        if start >= len(content) > 0:
            self._send(416, b"", {})
            return
        limit = self.server.limit
        if limit is not None and self.server.breaks > 0:
            self.server.breaks -= 1
        else:
            limit = None
        self._send(status, content[start:], {"ETag": mark}, limit)

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str], limit: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if limit is None else body[:limit])
        self.close_connection |= limit is not None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.gate.set()
            server.shutdown()
            thread.join(60)


def layer(files: Mapping[str, bytes | str], mode: str = "w:gz", mtime: int = 0) -> bytes:
    """Return a layer; a name that ends with ``/`` is a folder, a text is where a link leads."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.mtime = mtime
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            data = io.BytesIO(content) if isinstance(content, bytes) else None
            archive.addfile(member, data)
    return output.getvalue()


def publish(
    server: Server, name: str, tag: str, *layers: bytes, architecture: str = "amd64"
) -> str:
    """Put an image into the registry, below an index for one architecture; return its digest."""
    blobs = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": _put(server, f"/v2/{name}/blobs/", content),
            "size": len(content),
        }
        for content in layers
    ]
    manifest = json.dumps({"schemaVersion": 2, "layers": blobs}).encode()
    platform = {"os": "linux", "architecture": architecture}
    entry = {"digest": _put(server, f"/v2/{name}/manifests/", manifest), "platform": platform}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    server.files[f"/v2/{name}/manifests/{tag}"] = index
    tags = f"/v2/{name}/tags/list"
    before = json.loads(server.files.get(tags, b'{"tags": []}'))["tags"]
    server.files[tags] = json.dumps({"tags": [*before, tag]}).encode()
    return _put(server, f"/v2/{name}/manifests/", index)


def _put(server: Server, folder: str, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    server.files[folder + digest] = content
    return digest
