"""Small programs written by hand, where a compiler would be too much: one function an instruction.

Registers are numbers: 0 returns, 1 to 5 are arguments (and gone after a call), 6 to 9 keep their
values, 10 is the end of the stack. The codes are those of ``uapi/linux/bpf.h``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOKUP, UPDATE, CLOCK = 1, 2, 5
"""The helpers ``bpf_map_lookup_elem``, ``bpf_map_update_elem`` and ``bpf_ktime_get_ns``."""

PSEUDO_MAP_FD, PSEUDO_KFUNC, PSEUDO_FUNC = 1, 2, 4
"""What a number stands for: a map by descriptor, a kernel function by type, a function here."""

EQUAL, DIFFERENT, GREATER = 0x1D, 0x5D, 0x6D
"""Comparisons of two registers; `GREATER` is signed."""

_READ = {1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}
_WRITE = {1: 0x73, 2: 0x6B, 4: 0x63, 8: 0x7B}


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Return one ``struct bpf_insn``."""
    return struct.pack("=BBhi", code, source << 4 | to, offset, value)


def move(to: int, value: int) -> bytes:
    """``to = value``."""
    return _instruction(0xB7, to, value=value)


def copy(to: int, source: int) -> bytes:
    """``to = source``, another register."""
    return _instruction(0xBF, to, source)


def add(to: int, value: int) -> bytes:
    """``to += value``."""
    return _instruction(0x07, to, value=value)


def plus(to: int, source: int) -> bytes:
    """``to += source``, another register."""
    return _instruction(0x0F, to, source)


def times(to: int, value: int) -> bytes:
    """``to *= value``."""
    return _instruction(0x27, to, value=value)


def masked(to: int, source: int) -> bytes:
    """``to &= source``, another register."""
    return _instruction(0x5F, to, source)


def read(to: int, source: int, offset: int, size: int = 8) -> bytes:
    """``to = *(source + offset)``, of 1, 2, 4 or 8 bytes."""
    return _instruction(_READ[size], to, source, offset)


def write(to: int, offset: int, source: int, size: int = 8) -> bytes:
    """``*(to + offset) = source``, of 1, 2, 4 or 8 bytes."""
    return _instruction(_WRITE[size], to, source, offset)


def widths(size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, width) of the words that ``size`` bytes are moved in."""
    done = 0
    while done < size:
        width = next(width for width in (8, 4, 2, 1) if width <= size - done)
        yield done, width
        done += width


def copy_bytes(to: int, offset: int, source: int, size: int, through: int) -> bytes:
    """Copy ``size`` bytes from ``source`` to ``to + offset``, ``through`` a register."""
    return b"".join(
        read(through, source, at, width) + write(to, offset + at, through, width)
        for at, width in widths(size)
    )


def store(offset: int, value: int) -> bytes:
    """Put 8 bytes with a small number on the stack, ``offset`` (below 0) from its end."""
    return _instruction(0x7A, 10, offset=offset, value=value)


def stack(to: int, offset: int) -> bytes:
    """``to`` = the address ``offset`` from the stack's end."""
    return copy(to, 10) + add(to, offset)


def increase(to: int, source: int) -> bytes:
    """``*to += source``, 8 bytes, in one step."""
    return _instruction(0xDB, to, source)


def load_map(to: int, fd: int) -> bytes:
    """``to`` = the map with this descriptor."""
    return _instruction(0x18, to, PSEUDO_MAP_FD, value=fd) + _instruction(0)


def load_function(to: int, behind: bytes) -> bytes:
    """``to`` = the function that begins ``behind`` these instructions, which follow."""
    return _instruction(0x18, to, PSEUDO_FUNC, value=length(behind) + 1) + _instruction(0) + behind


def call(helper: int) -> bytes:
    """``r0 = helper(r1, ...)``."""
    return _instruction(0x85, value=helper)


def otherwise(register: int, body: bytes) -> bytes:
    """Do ``body`` when ``register`` is 0."""
    return _instruction(0x55, register, offset=length(body)) + body


def when_negative(register: int, body: bytes) -> bytes:
    """Do ``body`` when the lower 32 bits of ``register`` are a number below 0."""
    return _instruction(0x76, register, offset=length(body)) + body


def unless(comparison: int, left: int, right: int, body: bytes) -> bytes:
    """Do ``body`` unless a comparison of two registers holds."""
    return _instruction(comparison, left, right, length(body)) + body


def either(comparison: int, left: int, right: int, body: bytes, other: bytes) -> bytes:
    """Do ``other`` when a comparison of two registers holds, and ``body`` when not."""
    over = _instruction(0x05, offset=length(other))
    return unless(comparison, left, right, body + over) + other


def repeat(register: int, turns: int, body: bytes) -> bytes:
    """Do ``body`` so many times; ``register`` counts from 0."""
    body += add(register, 1)
    return (
        move(register, 0)
        + body
        + _instruction(0xA5, register, offset=-length(body) - 1, value=turns)
    )


def call_kfunc(type_id: int) -> bytes:
    """Call a function of the kernel by its type in the kernel's BTF."""
    return _instruction(0x85, source=PSEUDO_KFUNC, value=type_id)


def leave() -> bytes:
    """Return r0."""
    return _instruction(0x95)


def length(code: bytes) -> int:
    """Return how many instructions these are, a `load_map` being two."""
    return len(code) // 8


RETURN_0 = move(0, 0) + leave()
