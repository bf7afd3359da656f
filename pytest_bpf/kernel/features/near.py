"""Names in the kernel's BTF that are near to one that it lacks, which may be misspelt."""

from __future__ import annotations

import difflib
import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADER = struct.Struct("=HBBIIIII")
"""``struct btf_header``: the strings are at ``str_off`` behind it, ``str_len`` bytes."""

BEGINNING, LENGTHS, LEAST = 2, 2, 0.8
"""Letters that a near name begins with, how many more or less it may have, and how near it is."""


def near_name(path: Path, name: str, exists: Callable[[str], object]) -> str:
    """Return ``" (did you mean 'x'?)"`` with the nearest name that ``exists``, or "".

    ``path`` has the kernel's BTF. Only its strings are read, as text.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    *_, length, _, _, start, size = HEADER.unpack_from(content)
    beginning = re.escape(name[:BEGINNING].encode(errors="replace"))
    more = max(0, len(name) - BEGINNING)
    low, high = max(0, more - LENGTHS), more + LENGTHS
    pattern = rb"\0(%b\w{%d,%d})(?=\0)" % (beginning, low, high)
    strings = content[length + start : length + start + size]
    known = {match.decode() for match in re.findall(pattern, strings)} - {name}
    close = difflib.get_close_matches(name, sorted(known), n=5, cutoff=LEAST)
    return next((f" (did you mean {other!r}?)" for other in close if exists(other)), "")
