"""What a compiled object was made from: the files the compiler read, and whether they still are.

A file is first compared by its status (size, time, inode) and read only when that differs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SETTLED_NS = 2 * 10**9
"""How old a file must be before its status alone vouches for its content: file systems with coarse
clocks give two writes in a row the same time."""


@dataclass(frozen=True)
class Header:
    """One file the compiler read: its absolute path, status and SHA-256 (empty: unreadable)."""

    path: str
    digest: str
    size: int
    mtime_ns: int
    inode: int


def observe(path: str, now_ns: int) -> Header:
    """Return ``path`` as it is at ``now_ns``, ns since the epoch."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - on the path of every cache hit
            status = os.fstat(file.fileno())
            checksum = sha256(file.read()).hexdigest()
    except OSError:
        return Header(path, "", 0, 0, 0)
    settled = status.st_mtime_ns < now_ns - SETTLED_NS
    return Header(
        path, checksum, status.st_size, status.st_mtime_ns if settled else 0, status.st_ino
    )


def recheck(header: Header, now_ns: int) -> Header | None:
    """Return the header when its content is what it was, with its present status; else None."""
    try:
        status = os.stat(header.path)  # noqa: PTH116 - on the path of every cache hit
        status_then = (header.size, header.mtime_ns, header.inode)
        if (status.st_size, status.st_mtime_ns, status.st_ino) == status_then:
            return header
    except OSError:
        return None
    header_now = observe(header.path, now_ns)
    return header_now if header_now.digest == header.digest else None


def changed_since(header: Header, start_ns: int) -> bool:
    """Say whether ``header`` was written at or after ``start_ns``, or may have been."""
    try:
        return Path(header.path).stat().st_mtime_ns >= start_ns
    except OSError:
        return True


def parse_dependencies(text: str) -> list[str]:
    r"""Return the files of a rule as ``-MD -MT x`` writes it, the source first.

    >>> parse_dependencies("x: a.c \\\n  my\\ dir/b.h c$$d.h")
    ['a.c', 'my dir/b.h', 'c$d.h']
    """
    words = re.findall(r"(?:\\[ #]|\S)+", text.replace("\\\n", " ").partition(":")[2])
    return [re.sub(r"\\([ #])", r"\1", word).replace("$$", "$") for word in words]


def shadows(
    files: Iterable[str], private: Sequence[str], searched: Sequence[str]
) -> tuple[str, ...]:
    """Return the paths, none of which exists, where a new file would be included instead.

    ``private`` are the folders where users put headers (the source's, the headers', ``-I``), and
    ``searched`` all folders that names are looked up in. A header found as ``bpf/x.h`` below a
    searched folder could appear as ``bpf/x.h`` below each private one.
    """
    below = [folder.rstrip("/") + "/" for folder in searched]
    names = {file[len(base) :] for file in files for base in below if file.startswith(base)}
    places = {os.path.join(folder, name) for folder in private for name in names}  # noqa: PTH118 - the strings are what is kept
    return tuple(sorted(place for place in places if not os.path.lexists(place)))
