"""An object file before libbpf sees it: is it one, and which source lines is it made of."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EM_BPF, STT_FUNC = 247, 2
_MACHINES = {3: "x86", 40: "ARM", 62: "x86_64", 183: "aarch64", 243: "RISC-V"}


@dataclass(frozen=True)
class SourceLine:
    """A source line that instructions were made of: where it stands, and its text.

    ``start`` is the first of these instructions, counted from the section's start.
    """

    section: str
    start: int
    file: str
    line: int
    text: str


def read_object(path: Path) -> bytes:
    """Return the content of an object file; `LoadError` when it cannot be one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"{path}: cannot be read: {error.strerror}", error.errno or 0) from None
    _check(path, content)
    return content


def _check(path: Path, content: bytes) -> None:
    if not content:
        raise LoadError(f"{path}: is empty (0 bytes); compile it again")
    if content[:4] != b"\x7fELF":
        raise LoadError(
            f"{path}: is no ELF object (it starts with {content[:4]!r}); "
            "pass a .bpf.c source or an object compiled for BPF"
        )
    if len(content) < 64:
        raise LoadError(f"{path}: is truncated: {len(content)} bytes, an ELF header has 64")
    ours = 1 if sys.byteorder == "little" else 2
    if content[4] != 2 or content[5] != ours:
        raise LoadError(f"{path}: has the word size or byte order of another machine")
    machine = struct.unpack_from("=H", content, 18)[0]
    if machine != EM_BPF:
        name = _MACHINES.get(machine, f"ELF machine {machine}")
        raise LoadError(f"{path}: is an object for {name}, not for BPF; compile with -target bpf")
    end = _section_table_end(content)
    if end > len(content):
        raise LoadError(
            f"{path}: is truncated: {len(content)} bytes, its section table ends at {end}; "
            "compile it again"
        )


def _section_table_end(content: bytes) -> int:
    offset: int = struct.unpack_from("=Q", content, 40)[0]
    size, count = struct.unpack_from("=HH", content, 58)
    return offset + int(size) * int(count)


def sections(content: bytes) -> dict[str, bytes]:
    """Return the sections by name; what lies outside the file is left out."""
    offset = struct.unpack_from("=Q", content, 40)[0]
    size, count, names_at = struct.unpack_from("=HHH", content, 58)
    if size < 64 or names_at >= count:
        return {}
    headers = [struct.unpack_from("=IIQQQQ", content, offset + i * size) for i in range(count)]
    names = _slice(content, headers[names_at][4], headers[names_at][5])
    return {_string(names, h[0]): _slice(content, h[4], h[5]) for h in headers if h[1] != 8}


def undefined_symbols(content: bytes) -> list[str]:
    """Return the names that an object leaves to the kernel or to libbpf, as declared in it."""
    return [s.name for s in symbols(content) if s.name and not s.section and not s.local]


@dataclass(frozen=True)
class Symbol:
    """An ELF symbol: ``section`` is where it lies, ``start`` and ``size`` are bytes there."""

    name: str
    section: str
    start: int
    size: int
    function: bool
    local: bool


def symbols(content: bytes) -> list[Symbol]:
    """Return the symbols of an object in order of their indexes."""
    offset = struct.unpack_from("=Q", content, 40)[0]
    size, count, names_at = struct.unpack_from("=HHH", content, 58)
    if size < 64 or names_at >= count:
        return []
    headers = [struct.unpack_from("=IIQQQQ", content, offset + i * size) for i in range(count)]
    names = _slice(content, headers[names_at][4], headers[names_at][5])
    in_order = dict(enumerate(_string(names, header[0]) for header in headers))
    parts = sections(content)
    strings, table = parts.get(".strtab", b""), parts.get(".symtab", b"")
    return [
        Symbol(
            _string(strings, name),
            in_order.get(index, "*ABS*"),
            start,
            length,
            info & 0xF == STT_FUNC,
            info >> 4 == 0,
        )
        for name, info, _, index, start, length in struct.iter_unpack(
            "=IBBHQQ", table[: len(table) // 24 * 24]
        )
    ]


def relocations(content: bytes, section: str) -> dict[int, int]:
    """Return the index of the symbol that is put in at each offset of a section."""
    table = sections(content).get(f".rel{section}", b"")
    pairs = struct.iter_unpack("=QQ", table[: len(table) // 16 * 16])
    return {offset: info >> 32 for offset, info in pairs}


def source_lines(content: bytes) -> Iterator[SourceLine]:
    """Yield the line information of an object (``.BTF.ext``), in order of its instructions.

    Nothing is yielded when there is none; the layout is ``struct btf_ext_info_sec`` and
    ``struct bpf_line_info`` of the kernel's ``Documentation/bpf/btf.rst``.
    """
    parts = sections(content)
    ext, btf = parts.get(".BTF.ext", b""), parts.get(".BTF", b"")
    try:
        header, _, _, line_at, line_size = struct.unpack_from("=5I", ext, 4)
        btf_header, _, _, strings_at = struct.unpack_from("=4I", btf, 4)
        yield from _records(ext, btf, header + line_at, line_size, btf_header + strings_at)
    except struct.error:
        return


def _records(ext: bytes, btf: bytes, at: int, size: int, strings_at: int) -> Iterator[SourceLine]:
    end = at + size
    record_size = struct.unpack_from("=I", ext, at)[0]
    at += 4
    while at + 8 <= end and record_size >= 16:
        name, count = struct.unpack_from("=II", ext, at)
        at += 8
        section = _string(btf, strings_at + name)
        for _ in range(count):
            offset, file, text, line = struct.unpack_from("=IIII", ext, at)
            at += record_size
            yield SourceLine(
                section,
                offset // 8,
                _string(btf, strings_at + file),
                line >> 10,
                _string(btf, strings_at + text).strip(),
            )


def _slice(content: bytes, offset: int, size: int) -> bytes:
    return content[offset : offset + size]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.find(b"\0", offset)].decode(errors="replace")
