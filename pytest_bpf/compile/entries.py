"""What the cache remembers of one compilation, and whether it still holds."""

from __future__ import annotations

import json
import os
import time
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import mark_used
from pytest_bpf.compile.headers import Header, recheck

if TYPE_CHECKING:
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
    entry = _parse(cache.read("entries", key))
    if entry is None or any(map(os.path.lexists, entry.absent)):
        return None
    now = time.time_ns()
    headers = tuple(h for header in entry.headers if (h := recheck(header, now)))
    if len(headers) != len(entry.headers):
        return None
    try:
        content = cache.read("objects", entry.object)
        if content is None or sha256(content).hexdigest() != entry.digest:
            return None
        mine = [Path(h.path) for h in headers if h.path.startswith(f"{cache.folder}/")]
        if not all(map(cache.trusts, mine)):
            return None
        for path in (cache.folder / "entries" / key, entry.path(cache), *mine):
            mark_used(path)
    except OSError:
        return None
    if headers != entry.headers:
        remember(cache, key, replace(entry, headers=headers))
    return entry


def remember(cache: Cache, key: str, entry: Entry) -> None:
    """Keep ``entry`` under ``key``."""
    cache.write(json.dumps(astuple(entry)).encode(), "entries", key)


def _parse(content: bytes | None) -> Entry | None:
    """Return the entry that a file holds, or None when there is none or it is damaged."""
    if content is None:
        return None
    try:
        name, digest, warnings, headers, absent = json.loads(content)
        return Entry(name, digest, warnings, tuple(Header(*h) for h in headers), tuple(absent))
    except (OSError, ValueError, TypeError):
        return None
