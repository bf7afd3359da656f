"""Small programs written by hand, where a compiler would be too much: one function an instruction.

Registers are numbers: 0 returns, 1 to 5 are arguments (and gone after a call), 6 to 9 keep their
values, 10 is the end of the stack. The codes are those of ``uapi/linux/bpf.h``.
"""

from __future__ import annotations

import struct

LOOKUP, UPDATE = 1, 2
"""The helpers ``bpf_map_lookup_elem`` and ``bpf_map_update_elem``."""

PSEUDO_MAP_FD = 1


def _instruction(code: int, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Return one ``struct bpf_insn``."""
    return struct.pack("=BBhi", code, of << 4 | to, offset, value)


def move(to: int, value: int) -> bytes:
    """``to = value``."""
    return _instruction(0xB7, to, value=value)


def copy(to: int, of: int) -> bytes:
    """``to = of``, another register."""
    return _instruction(0xBF, to, of)


def add(to: int, value: int) -> bytes:
    """``to += value``."""
    return _instruction(0x07, to, value=value)


def store(offset: int, value: int) -> bytes:
    """Put 8 bytes with a small number on the stack, ``offset`` (below 0) from its end."""
    return _instruction(0x7A, 10, offset=offset, value=value)


def stack(to: int, offset: int) -> bytes:
    """``to`` = the address ``offset`` from the stack's end."""
    return copy(to, 10) + add(to, offset)


def load_map(to: int, fd: int) -> bytes:
    """``to`` = the map with this descriptor."""
    return _instruction(0x18, to, PSEUDO_MAP_FD, value=fd) + _instruction(0)


def call(helper: int) -> bytes:
    """``r0 = helper(r1, ...)``."""
    return _instruction(0x85, value=helper)


def otherwise(register: int, done: bytes) -> bytes:
    """Do ``done`` when ``register`` is 0."""
    return _instruction(0x55, register, offset=len(done) // 8) + done


def leave() -> bytes:
    """Return r0."""
    return _instruction(0x95)


RETURN_0 = move(0, 0) + leave()
