"""What is mounted where, from ``/proc/self/mountinfo`` (see proc(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mount:
    """One mounted file system; ``root`` is the folder of it that is seen at ``path``."""

    kind: str
    path: Path
    root: str
    writable: bool


def mounts(kind: str, table: str | None = None) -> list[Mount]:
    """Return the mounts of file system ``kind``, the later ones last.

    ``table`` is the text to read instead of this process's own mountinfo.
    """
    if table is None:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return [mount for line in table.splitlines() if (mount := _parse(line)).kind == kind]


def _parse(line: str) -> Mount:
    before, after = line.split(" - ", 1)
    _, _, _, root, path, options, *_ = before.split(" ")
    kind, _, superblock = after.split(" ", 2)
    writable = "rw" in options.split(",") and "rw" in superblock.split(",")
    return Mount(kind, Path(_unescape(path)), _unescape(root), writable)


def _unescape(field: str) -> str:
    r"""Undo the ``\040`` for a blank, tab, newline or backslash in a path."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
