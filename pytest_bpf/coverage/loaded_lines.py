"""Which lines are in the programs that the kernel runs: the verifier removes dead code."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys.info import ProgramInfo, fill_info, read_info
from pytest_bpf.objects import elf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_bpf.objects import Program

Line = tuple[str, int]
"""A file's path and a number."""


def compiled_lines(content: bytes) -> frozenset[Line]:
    """Return the lines that an object has instructions of."""
    return frozenset((os.path.normpath(r.file), r.line) for r in elf.source_lines(content))


def loaded_lines(programs: Iterable[Program], content: bytes) -> frozenset[Line]:
    """Return the lines that loaded programs have instructions of; ``content`` is their object."""
    strings = _strings(content)
    return frozenset(line for program in programs for line in _lines(program.fd, strings))


def _lines(fd: int, strings: bytes) -> Iterator[Line]:
    sizes = read_info(fd, ProgramInfo)
    count, size = sizes.nr_line_info, sizes.line_info_rec_size
    if not count:
        return
    records = (ctypes.c_uint8 * (count * size))()
    info = ProgramInfo(nr_line_info=count, line_info_rec_size=size)
    info.line_info = ctypes.addressof(records)
    fill_info(fd, info)
    for at in range(0, count * size, size):
        _, name, _, place = struct.unpack_from("=4I", records, at)
        path = strings[name : strings.find(b"\0", name)].decode(errors="replace")
        yield os.path.normpath(path), place >> 10


def _strings(content: bytes) -> bytes:
    """Return the strings of an object's BTF, which the kernel's copy begins with."""
    btf = elf.sections(content).get(".BTF", b"")
    if len(btf) < 24:
        return b""
    header, _, _, start, size = struct.unpack_from("=5I", btf, 4)
    return btf[header + start : header + start + size]
