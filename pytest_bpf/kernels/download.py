"""Files from servers: checked, taken up where they broke off, with progress."""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_bpf.cache import FULL, digest, forget_old, open_cache
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernels import store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.client import HTTPResponse
    from pathlib import Path

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that are asked without TLS, as by other clients of registries."""

TRIES = 4
"""How often in a row a server may break off before anything has come."""

SILENCE = 30.0
"""Seconds that a server may say nothing."""

UNUSED = 14 * 24 * 3600
"""Seconds after which what came of a file that nobody goes on with is removed."""

CHUNK = 1 << 18

STEP = 20
"""Per cent between two notes of progress."""


@dataclass(frozen=True)
class Remote:
    """A file on a server: ``sha256`` in hexadecimal, empty when nobody said it.

    ``secret`` goes to this server alone (``Authorization``), and not to where it sends us.
    """

    url: str
    name: str
    sha256: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: str = ""


def require_safe(url: str, sha256: str = "") -> None:
    """Raise `BpfError` for an address that anybody on the way could answer for."""
    try:
        parts = urlsplit(url)
        host, scheme, _ = parts.hostname, parts.scheme, parts.port
    except ValueError as error:
        raise BpfError(f"{url!r} is no address: {error}") from None
    if not host or scheme not in ("http", "https"):
        raise BpfError(f"{url!r} is no address; write https://HOST/PATH")
    if scheme == "http" and host not in LOOPBACK and not sha256:
        raise BpfError(
            f"{url}: nobody vouches for what comes by http; write https, or the file's digest "
            "behind it, as #sha256=..."
        )


def request(remote: Remote, **headers: str) -> HTTPResponse:
    """Ask a server for a file and return its answer; the errors are those of urllib."""
    asked = urllib.request.Request(remote.url, headers={**remote.headers, **headers})  # noqa: S310 (checked by `require_safe`)
    if remote.secret:
        asked.add_unredirected_header("Authorization", remote.secret)
    answer: HTTPResponse = urllib.request.urlopen(asked, timeout=SILENCE)  # noqa: S310
    return answer


@contextmanager
def downloaded(remote: Remote) -> Iterator[Path]:
    """Give a file of a server; it is gone afterwards, and kept when what it was for fails.

    What an earlier run has got of it is used. Raises `UnavailableError` when the server has no
    such file or breaks off again and again, and `BpfError` when its digest differs or the disk
    is full.
    """
    require_safe(remote.url, remote.sha256)
    key = digest(remote.url, remote.sha256)[:32]
    with open_cache().lock(f"download-{key}"):
        path = open_cache().path("downloads", key)
        transfer = _Transfer(remote, path)
        forget_old(path.parent, UNUSED)
        transfer.run()
        if remote.sha256 and transfer.resumed and _sha256(path) != remote.sha256:
            transfer.restart()  # what an earlier run has got is of another file
        if remote.sha256 and (actual := _sha256(path)) != remote.sha256:
            transfer.forget()
            raise BpfError(
                f"{remote.url}: its sha256 is {actual}, not {remote.sha256}; it is not used"
            )
        yield path
        transfer.forget()


class _Transfer:
    """One file on its way: what has come, and what tells that the rest belongs to it."""

    def __init__(self, remote: Remote, path: Path) -> None:
        self._remote = remote
        self._path = path
        self._note = path.with_suffix(".from")
        self._shown = -1
        self._again = False
        self.resumed = False

    def run(self) -> None:
        """Receive the file."""
        failures = 0
        while failures < TRIES:
            before = self._size()
            try:
                if self._receive():
                    self._end_line()
                    return
                reason = "it broke off"
            except urllib.error.HTTPError as error:
                if error.code == 416 and before and not self._again:  # it has become shorter
                    self.restart()
                    return
                if error.code < 500:
                    self._end_line()
                    raise UnavailableError(
                        f"{self._remote.url}: the server says {error.code} {error.reason}"
                    ) from None
                reason = f"{error.code} {error.reason}"
            except (urllib.error.URLError, HTTPException, OSError) as error:
                self._require_room(error)
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            failures = 0 if self._size() > before else failures + 1
        self._end_line()
        raise UnavailableError(
            f"{self._remote.url}: {reason}, {TRIES} times in a row, after {self._size()} bytes; "
            "the next run goes on there"
        )

    def restart(self) -> None:
        """Begin anew."""
        self.forget()
        self.resumed, self._again = False, True
        self.run()

    def forget(self) -> None:
        """Remove what has come."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _receive(self) -> bool:
        """Receive what is missing, as much as comes; say whether that is all."""
        size, mark = self._size(), self._mark()
        if size and self._remote.sha256 and _sha256(self._path) == self._remote.sha256:
            return True
        if size and not (mark or self._remote.sha256):
            self.forget()  # nothing would tell whether the rest belongs to it
            size = 0
        wanted = {"Range": f"bytes={size}-"} if size else {}
        if size and mark:
            wanted["If-Range"] = mark
        with request(self._remote, **wanted) as answer:
            resumed = answer.status == 206
            if not resumed:
                self.forget()
                size = 0
            self.resumed |= resumed
            total = _total(answer, size)
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            self._note.write_text(json.dumps("" if tag.startswith("W/") else tag))
            if total is not None:
                store.require_room(self._path.parent, self._remote.name, (total - size >> 20) + 16)
            with self._path.open("ab") as file:
                self._path.chmod(0o600)
                while data := answer.read(CHUNK):
                    file.write(data)
                    size += len(data)
                    self._show(size, total)
        return total is None or size >= total

    def _size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _mark(self) -> str:
        """Return what the server called the version that has come so far."""
        with suppress(OSError, ValueError):
            return str(json.loads(self._note.read_text()))
        return ""

    def _require_room(self, error: Exception) -> None:
        if getattr(error, "errno", None) in FULL:
            self.forget()
            raise BpfError(
                f"{self._remote.name}: {error}; make room in {self._path.parent}, or set "
                "PYTEST_BPF_CACHE to another folder"
            ) from None

    def _show(self, size: int, total: int | None) -> None:
        if self._shown < 0:
            much = f", {max(1, total >> 20)} MB" if total else ""
            _say(f"pytest-bpf: downloading {self._remote.name}{much}, once:")
            self._shown = 0
        percent = 100 * size // total if total else 0
        while self._shown + STEP <= percent:
            self._shown += STEP
            _say(f" {self._shown} %")

    def _end_line(self) -> None:
        if self._shown >= 0:
            _say("\n")


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)  # noqa: T201 (progress)


def _total(answer: HTTPResponse, before: int) -> int | None:
    """Return how many bytes the whole file has, None when the server does not say."""
    length = answer.headers.get("Content-Length", "")
    return before + int(length) if length.isdecimal() else None


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            total.update(data)
    return total.hexdigest()
