"""The BPF sources of a repository."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSED_OVER = {"node_modules", "build", "dist", "venv", "__pycache__", "third_party", "vendor"}
"""Folders with nothing of the repository's own, beside those whose name begins with a dot."""

HELPERS = re.compile(rb"#include\s*[<\"](?:[\w./]*/)?bpf_helpers\.h[>\"]")
SECTION = re.compile(
    rb"^\s*(?:static\s+)?SEC\(\s*\"(?!license\"|maps\"|\.maps\"|version\")", re.MULTILINE
)

LARGEST = 1 << 20
"""Bytes of a source that is read; what is larger is generated."""


def find_sources(folder: Path) -> list[Path]:
    """Return the C files with BPF programs in and below ``folder``, sorted.

    Files that git ignores are left out, and so are tests in C (``*.test.bpf.c``), which pytest
    collects as they are.
    """
    files = (path for path in _files(folder) if path.suffix == ".c")
    return sorted(path for path in files if _has_programs(path))


def _files(folder: Path) -> Iterator[Path]:
    command = ("git", "-C", str(folder), "ls-files", "-z", "-co", "--exclude-standard", "--", ".")
    try:
        listing = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository of it
        yield from _walk(folder)
        return
    for name in filter(None, listing.split(b"\0")):
        path = folder / os.fsdecode(name)
        if not PASSED_OVER.intersection(path.relative_to(folder).parts[:-1]):
            yield path


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if n not in PASSED_OVER and not n.startswith(".")]
        yield from (Path(place, name) for name in names)


def _has_programs(path: Path) -> bool:
    if path.name.endswith(".test.bpf.c") or not path.is_file():
        return False
    if path.stat().st_size > LARGEST:
        return False
    text = path.read_bytes()
    return bool(SECTION.search(text) and (HELPERS.search(text) or path.name.endswith(".bpf.c")))
