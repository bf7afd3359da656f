"""The tables of an object file, to read and to write again: several sections share a name here."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEADER_SIZE, TABLE_AT = 64, 40
SYMTAB, REL = 2, 9
_SECTION, _SYMBOL = struct.Struct("=IIQQQQIIQQ"), struct.Struct("=IBBHQQ")


class Section(NamedTuple):
    """A section header: ``struct Elf64_Shdr``."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Symbol(NamedTuple):
    """A symbol: ``struct Elf64_Sym``."""

    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


class Elf:
    """An object file's ``sections`` and ``symbols``, by their indexes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        table_at = struct.unpack_from("=Q", content, TABLE_AT)[0]
        _, count, self._names_at = struct.unpack_from("=HHH", content, 58)
        self.sections = [
            Section(*_SECTION.unpack_from(content, table_at + _SECTION.size * index))
            for index in range(count)
        ]
        self.strings = self.raw(self._names_at)
        self._symbols_at = next(i for i, s in enumerate(self.sections) if s.type == SYMTAB)
        self.symbols = [Symbol(*s) for s in _SYMBOL.iter_unpack(self.raw(self._symbols_at))]

    def named(self, name: str) -> list[int]:
        """Return the indexes of the sections of a name."""
        return [i for i, section in enumerate(self.sections) if self._name(section) == name]

    def raw(self, index: int) -> bytes:
        """Return the bytes of a section."""
        section = self.sections[index]
        return self.content[section.offset : section.offset + section.size]

    def relocations(self, index: int) -> Iterator[tuple[int, Symbol]]:
        """Yield the offsets in a section where something is put in, and the symbols of that."""
        for table, section in enumerate(self.sections):
            if section.type == REL and section.info == index:
                for offset, info in struct.iter_unpack("=QQ", self.raw(table)):
                    yield offset, self.symbols[info >> 32]

    def rewritten(
        self,
        sections: Sequence[Section],
        symbols: Sequence[Symbol],
        strings: bytes,
        data: bytes,
    ) -> bytes:
        """Return the file with other tables, and ``data`` at `end`."""
        table = list(sections)
        raw_symbols = b"".join(_SYMBOL.pack(*symbol) for symbol in symbols)
        symbols_at = self.end + len(data)
        strings_at = symbols_at + len(raw_symbols)
        table_at = -(-(strings_at + len(strings)) // 8) * 8
        table[self._symbols_at] = table[self._symbols_at]._replace(offset=symbols_at)
        size = len(strings)
        table[self._names_at] = table[self._names_at]._replace(offset=strings_at, size=size)
        header = bytearray(self.content[:HEADER_SIZE])
        struct.pack_into("=Q", header, TABLE_AT, table_at)
        body = self.content[HEADER_SIZE:].ljust(self.end - HEADER_SIZE, b"\0")
        whole = (bytes(header) + body + data + raw_symbols + strings).ljust(table_at, b"\0")
        return whole + b"".join(_SECTION.pack(*section) for section in table)

    @property
    def end(self) -> int:
        """Where new bytes are put."""
        return -(-len(self.content) // 8) * 8

    def _name(self, section: Section) -> str:
        end = self.strings.index(b"\0", section.name)
        return self.strings[section.name : end].decode(errors="replace")
