"""The capabilities of the calling thread: capabilities(7), capget(2), capset(2)."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys import libc

if TYPE_CHECKING:
    from collections.abc import Collection

VERSION_3 = 0x20080522
NUMBERS = {
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""By name; ``linux/capability.h``."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    """The lower and the upper 32 bits of each set."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def has(name: str) -> bool:
    """Say whether a capability is in the calling thread's effective set."""
    word, bit = divmod(NUMBERS[name], 32)
    return bool(_get()[word].effective >> bit & 1)


def drop(names: Collection[str], keep: Collection[str] = ()) -> None:
    """Take capabilities out of the calling thread's effective set, but those to ``keep``.

    They stay permitted: `restore` brings them back. Raises `OSError`.
    """
    sets = _get()
    for name in set(names) - set(keep):
        word, bit = divmod(NUMBERS[name], 32)
        sets[word].effective &= ~(1 << bit)
    _set(sets)


def restore() -> None:
    """Make every permitted capability of the calling thread effective; raises `OSError`."""
    sets = _get()
    for word in sets:
        word.effective = word.permitted
    _set(sets)


def unprivileged_bpf_disabled() -> bool:
    """Say whether the kernel refuses bpf(2) to whoever has no privilege."""
    try:
        text = Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text(encoding="ascii")
    except OSError:
        return False
    return text.strip() != "0"


def _get() -> ctypes.Array[_Sets]:
    header, sets = _Header(VERSION_3, 0), (_Sets * 2)()
    libc.check(libc.library().capget(ctypes.byref(header), sets), "capget")
    return sets


def _set(sets: ctypes.Array[_Sets]) -> None:
    header = _Header(VERSION_3, 0)
    libc.check(libc.library().capset(ctypes.byref(header), sets), "capset")
