"""The symbol tables, notes and debug files of ELF files."""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

FUNCTION, IFUNC = 2, 10
"""``STT_FUNC`` and ``STT_GNU_IFUNC``."""

HIDDEN = 0x8000
"""The bit of a version that is not the default one."""

DEBUG_FOLDER = Path("/usr/lib/debug")


class DamagedElfError(Exception):
    """A file that is no ELF file, or a damaged one."""


class FunctionSymbol(NamedTuple):
    """A function: its address, its version ("" without) and whether that is the default one."""

    address: int
    version: str
    default: bool
    ifunc: bool


class Tables(NamedTuple):
    """The functions of a file by name, those that it takes of others, and where its segments lie.

    A segment is (address, size, offset in the file); ``stripped`` files have no ``.symtab``.
    """

    functions: dict[str, list[FunctionSymbol]]
    imports: frozenset[str]
    segments: tuple[tuple[int, int, int], ...]
    stripped: bool


def read_tables(path: Path) -> Tables:
    """Return the symbols of a file; raise `DamagedElfError`, `OSError`."""
    functions: dict[str, list[FunctionSymbol]] = defaultdict(list)
    imports = set()
    with _open(path) as elf:
        for name, symbol in _symbols(elf):
            if symbol is None:
                imports.add(name)
            else:
                functions[name].append(symbol)
        segments = tuple(
            (part["p_vaddr"], part["p_filesz"], part["p_offset"])
            for part in elf.iter_segments("PT_LOAD")
        )
        stripped = elf.get_section_by_name(".symtab") is None
    return Tables(dict(functions), frozenset(imports), segments, stripped)


def read_debug_functions(path: Path) -> dict[str, list[FunctionSymbol]]:
    """Return the functions in the debug file of a stripped file, {} without; errors as above."""
    functions: dict[str, list[FunctionSymbol]] = defaultdict(list)
    with _open(path) as elf:
        for name, symbol in _debug_symbols(path, elf):
            if symbol is not None:
                functions[name].append(symbol)
    return dict(functions)


def usdt_probes(path: Path) -> list[str]:
    """Return the probes that a binary declares, as ``"provider:name"``; errors as above."""
    with _open(path) as elf:
        notes = elf.get_section_by_name(".note.stapsdt")
        addresses = 3 * elf.elfclass // 8  # of the probe, of the base, of the semaphore
        names = [note["n_descdata"][addresses:] for note in notes.iter_notes()] if notes else []
        return sorted({b":".join(name.split(b"\0")[:2]).decode(errors="replace") for name in names})


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 (only probes of binaries need it)

    damage = (ELFError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError)
    with path.open("rb") as file:
        try:
            yield _elf(file)
        except (
            *damage,
            struct.error,
            lzma.LZMAError,
            zlib.error,
            AssertionError,
            MemoryError,
        ) as error:
            raise DamagedElfError(f"{path} is no ELF file, or a damaged one: {error}") from None


def _elf(file: Any) -> Any:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 (only probes of binaries need it)

    return ELFFile(file)


def _symbols(elf: Any) -> Iterator[tuple[str, FunctionSymbol | None]]:
    """Yield the functions of a file's symbol tables; None stands for one of another file."""
    versions = _versions(elf)
    for table in (".dynsym", ".symtab"):
        section = elf.get_section_by_name(table)
        if section is None or section["sh_type"] == "SHT_NOBITS":
            continue
        strings = _content(elf, elf.get_section(section["sh_link"]))
        for index, entry in enumerate(_entries(elf, _content(elf, section))):
            name_at, kind, home, address = entry
            if kind not in {FUNCTION, IFUNC} or not name_at:
                continue
            name = strings[name_at : strings.index(0, name_at)].decode(errors="replace")
            if not home:
                yield name.partition("@")[0], None
                continue
            version, default = (
                versions.get(index, ("", False)) if table == ".dynsym" else ("", False)
            )
            plain, _, written = name.partition("@")  # .symtab writes the version into the name
            if written:
                version, default = written.lstrip("@"), written.startswith("@")
            yield plain, FunctionSymbol(address, version, default, kind == IFUNC)


def _content(elf: Any, section: Any) -> bytes:
    if section["sh_size"] > elf.stream_len:
        raise ValueError("a section is larger than the file")
    return bytes(section.data())


def _entries(elf: Any, data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield (offset of the name, type, section, address) of each entry of a symbol table."""
    order = "<" if elf.little_endian else ">"
    if elf.elfclass == 64:
        for name, info, _, home, address, _ in struct.iter_unpack(order + "IBBHQQ", data):
            yield name, info & 15, home, address
    else:
        for name, address, _, info, _, home in struct.iter_unpack(order + "IIIBBH", data):
            yield name, info & 15, home, address


def _versions(elf: Any) -> dict[int, tuple[str, bool]]:
    """Return the version of each entry of the dynamic symbols that is defined here."""
    numbers = elf.get_section_by_name(".gnu.version")
    definitions = elf.get_section_by_name(".gnu.version_d")
    if numbers is None or definitions is None or numbers["sh_type"] == "SHT_NOBITS":
        return {}
    names = {
        definition["vd_ndx"]: next(iter(auxiliaries)).name
        for definition, auxiliaries in definitions.iter_versions()
    }
    order = "<" if elf.little_endian else ">"
    return {
        index: (names[number & ~HIDDEN], not number & HIDDEN)
        for index, (number,) in enumerate(struct.iter_unpack(order + "H", _content(elf, numbers)))
        if number & ~HIDDEN > 1 and number & ~HIDDEN in names
    }


def _debug_symbols(path: Path, elf: Any) -> Iterator[tuple[str, FunctionSymbol | None]]:
    """Yield the functions of a stripped file's debug file, or of the short one that is inside."""
    inside = elf.get_section_by_name(".gnu_debugdata")
    if inside is not None:
        yield from _symbols(_elf(io.BytesIO(lzma.decompress(_content(elf, inside)))))
    for candidate in _debug_files(path, elf):
        if candidate.is_file():
            with candidate.open("rb") as file:
                yield from _symbols(_elf(file))
            return


def _debug_files(path: Path, elf: Any) -> Iterator[Path]:
    note = elf.get_section_by_name(".note.gnu.build-id")
    if note is not None:
        build = _content(elf, note)[16:].hex()
        yield DEBUG_FOLDER / ".build-id" / build[:2] / f"{build[2:]}.debug"
    link = elf.get_section_by_name(".gnu_debuglink")
    if link is not None:
        name = _content(elf, link).partition(b"\0")[0].decode(errors="replace")
        folder = path.resolve().parent
        yield from (folder / name, folder / ".debug" / name)
        yield DEBUG_FOLDER / folder.relative_to("/") / name
