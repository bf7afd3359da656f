"""What the cache remembers of one compilation, and whether it still holds."""

from __future__ import annotations

import json
import os
import time
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from pytest_bpf.cache import used
from pytest_bpf.compile.headers import Header, recheck

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_bpf.cache import Cache


@dataclass(frozen=True)
class Entry:
    """One compiled object: its file in the cache and what it depends on.

    ``object`` is a file name in the cache's ``objects`` and ``digest`` its SHA-256; ``warnings`` is
    what the compiler printed; ``headers`` are the files it read besides the source, and ``absent``
    those that must not appear because they would be included instead.
    """

    object: str
    digest: str
    warnings: str
    headers: tuple[Header, ...]
    absent: tuple[str, ...]

    def path(self, cache: Cache) -> Path:
        """Return the object's path."""
        return cache.folder / "objects" / self.object


def recall(cache: Cache, key: str) -> Entry | None:
    """Return what was remembered under ``key`` when it all still holds: headers, object and all."""
    file = cache.folder / "entries" / key
    entry = _parse(file)
    if entry is None or any(map(os.path.lexists, entry.absent)):
        return None
    now = time.time_ns()
    present = tuple(h for header in entry.headers if (h := recheck(header, now)))
    if len(present) != len(entry.headers):
        return None
    try:
        if sha256(entry.path(cache).read_bytes()).hexdigest() != entry.digest:
            return None
        mine = f"{cache.folder}/"
        for path in (str(file), str(entry.path(cache)), *(header.path for header in present)):
            if path.startswith(mine):
                used(path)
    except OSError:
        return None
    if present != entry.headers:
        remember(cache, key, replace(entry, headers=present))
    return entry


def remember(cache: Cache, key: str, entry: Entry) -> None:
    """Keep ``entry`` under ``key``."""
    cache.write(json.dumps(astuple(entry)).encode(), "entries", key)


def _parse(file: Path) -> Entry | None:
    """Return the entry in ``file``, or None when there is none or it is damaged."""
    try:
        name, digest, warnings, headers, absent = json.loads(file.read_bytes())
        return Entry(name, digest, warnings, tuple(Header(*h) for h in headers), tuple(absent))
    except (OSError, ValueError, TypeError):
        return None
