"""What an error code means for a kind of map."""

from __future__ import annotations

import errno

from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.batches import LACKING
from pytest_bpf.objects.layout import INDEXED


def explained(code: int, kind: str, max_entries: int) -> str | None:
    """Return what an error code means for a map, where it can be said better than by its name."""
    if code == errno.E2BIG and kind in INDEXED:
        return f"the index is past the end, max_entries is {max_entries}"
    if code in {errno.E2BIG, errno.ENOSPC}:
        return f"the map is full: max_entries is {max_entries} ({errno.errorcode[code]})"
    if code == errno.EEXIST:
        return "the key exists already and the flag is 'noexist' (EEXIST)"
    if code == errno.EPERM:
        return "the kernel forbids it for this map: it is frozen or read-only (EPERM)"
    if code in LACKING:
        return f"a {kind} does not do that from user space ({libbpf.reason(code)})"
    return None
