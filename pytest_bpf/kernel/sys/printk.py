"""What programs print by ``bpf_printk``: in a trace instance of our own, which nobody else reads.

The host's ``trace_pipe`` is left alone: whoever reads that takes lines away from others.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.sys.names import claim, is_stale, release, unique_name
from pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs

if TYPE_CHECKING:
    from pathlib import Path

BUFFER_KB = 256
"""Kilobytes for each CPU; the oldest lines give way to new ones."""

MOST = 1 << 20
"""Bytes at the end of the trace that are read."""

CALLS = (b"\x85\0\0\0\x06\0\0\0", b"\x85\0\0\0\xb1\0\0\0")
"""The instructions that call ``bpf_trace_printk`` (6) and ``bpf_trace_vprintk`` (177)."""

_LINE = re.compile(r" (\d+\.\d+): bpf_trace_printk: (.*)")
_DIRECTIVE = re.compile(r"%(?:%|[-+ #0]*\d*(?:\.\d+)?(?:hh|h|ll|l)?[a-zA-Z]\w*)")


@dataclass(frozen=True)
class PrintedLine:
    """One line: ``time`` is that of ``time.monotonic()``."""

    time: float
    text: str


def prints(content: bytes) -> bool:
    """Say whether a program of an object file calls ``bpf_printk``."""
    return any(call in content for call in CALLS)


class PrintkTrace:
    """A trace instance that gets what is printed from now on, until `close`.

    Raises `UnavailableError` where the kernel or the user cannot have one.
    """

    def __init__(self) -> None:
        try:
            self._path = with_tracefs(_make)
        except OSError as error:
            raise UnavailableError(
                f"bpf_printk cannot be followed: no trace instance: {error.strerror}"
            ) from None
        self.start = time.monotonic()

    def lines(self, since: float = 0.0) -> list[PrintedLine]:
        """Return the lines since a moment of ``time.monotonic()``; they stay where they are."""
        text = with_tracefs(_read, self._path)
        lines = ((float(match[1]), match[2]) for match in _LINE.finditer(text))
        return [PrintedLine(moment, line) for moment, line in lines if moment >= since]

    def close(self) -> None:
        """Remove the instance."""
        with suppress(OSError):
            with_tracefs(self._path.rmdir)
            release(self._path)


def formats(sections: dict[str, bytes]) -> list[re.Pattern[str]]:
    """Return patterns of the lines that an object's programs can print, by its strings."""
    patterns = []
    for name, content in sections.items():
        if name.startswith((".rodata", ".data", ".bss")):
            for raw in re.findall(rb"[\x09\x0a\x20-\x7e]{2,}(?=\0)", content):
                parts = _DIRECTIVE.split(raw.decode("ascii").rstrip("\n"))
                if any(part.strip() for part in parts):
                    patterns.append(re.compile(".*".join(map(re.escape, parts))))
    return patterns


def _make() -> Path:
    root = tracefs()
    assert root is not None
    instances = root / "instances"
    for old in instances.iterdir():
        if is_stale(old.name):
            with suppress(OSError):
                old.rmdir()
    path = claim(instances / unique_name(), lambda place: with_tracefs(place.rmdir))
    try:
        path.mkdir()
    except OSError:
        release(path)
        raise
    try:
        (path / "trace_clock").write_text("mono", encoding="ascii")
        (path / "buffer_size_kb").write_text(str(BUFFER_KB), encoding="ascii")
        (path / "events/bpf_trace/bpf_trace_printk/enable").write_text("1", encoding="ascii")
    except OSError:
        path.rmdir()
        release(path)
        raise
    return path


def _read(path: Path) -> str:
    with (path / "trace").open("rb") as file:
        content = b""
        while chunk := file.read(1 << 16):
            content = (content + chunk)[-MOST:]
    return content.decode(errors="replace")
