"""The functions of a binary: by name and version, from its symbols or those of its debug file."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from bisect import bisect_right
from functools import cached_property, lru_cache
from pathlib import Path

from pytest_bpf.errors import near_matches
from pytest_bpf.objects.elf_symbols import (
    DEBUG_FOLDER,
    DamagedElfError,
    FunctionSymbol,
    Tables,
    read_debug_functions,
    read_tables,
)
from pytest_bpf.objects.mangled import near_source_names, unread_names


class SymbolError(Exception):
    """A function that a binary does not have, or not exactly once."""


class Binary:
    """The functions of an ELF file by name; its debug file is read when it is needed."""

    def __init__(self, path: Path, tables: Tables) -> None:
        self.path = path
        self._tables = tables

    @classmethod
    def read(cls, path: Path) -> Binary:
        """Read a file, or take what was read of it before; raise `SymbolError` for no ELF file."""
        try:
            stat = path.stat()
            return _binary(path, stat.st_mtime_ns, stat.st_size)
        except OSError as error:
            raise SymbolError(f"{path} cannot be read: {error.strerror}") from None
        except DamagedElfError as error:
            raise SymbolError(str(error)) from None

    @cached_property
    def functions(self) -> dict[str, list[FunctionSymbol]]:
        """All functions that have a name, those of the debug file included."""
        try:
            debug = read_debug_functions(self.path) if self._tables.stripped else {}
        except (OSError, DamagedElfError):  # no use to anybody
            debug = {}
        return {**debug, **self._tables.functions}

    def offset(self, name: str, add: int = 0) -> int:
        """Return where in the file a function begins, in bytes, and ``add`` bytes more.

        ``name`` may have a version: ``"pthread_create@GLIBC_2.34"``. Without one it is the default
        version. Raises `SymbolError`, with near names.
        """
        symbol = self._symbol(name)
        if symbol.ifunc:
            return _implementation(self.path, name.partition("@")[0]) + add
        following = bisect_right(self.starts, symbol.address, key=lambda start: start[0])
        if add and following < len(self.starts):
            start, other = self.starts[following]
            if not 0 <= add < start - symbol.address:
                raise SymbolError(
                    f"{name}{add:+#x} is not in that function of {self.path}: {other!r} begins "
                    f"{start - symbol.address:#x} bytes behind it"
                )
        return self._in_file(symbol.address) + add

    def matches(self, pattern: str) -> list[str]:
        """Return the names of the functions that match a pattern; raise `SymbolError` for none."""
        if not set(pattern) & set("*?["):
            return [pattern]
        functions = self.functions
        names = sorted(fnmatch.filter(functions, pattern))
        plain = [name for name in names if not any(s.ifunc for s in functions[name])]
        offsets = {self._in_file(functions[name][0].address): name for name in plain}
        if not offsets:
            raise SymbolError(f"no function of {self.path} matches {pattern!r}")
        return sorted(offsets.values())

    @cached_property
    def starts(self) -> list[tuple[int, str]]:
        """Where functions begin, as addresses in the file's own memory, in ascending order."""
        places = {symbol.address: name for name, each in self.functions.items() for symbol in each}
        return sorted(places.items())

    def address(self, offset: int) -> int:
        """Return the address of an offset in the file; raise `SymbolError` where none is."""
        for start, size, place in self._tables.segments:
            if place <= offset < place + size:
                return offset - place + start
        raise SymbolError(f"{self.path} has nothing at the offset {offset:#x}")

    def _symbol(self, name: str) -> FunctionSymbol:
        plain, _, version = name.partition("@")
        version = version.lstrip("@")
        symbols = self._tables.functions.get(plain) or self.functions.get(plain, [])
        if version:
            exact = [symbol for symbol in symbols if symbol.version == version]
            if symbols and not exact:
                versions = ", ".join(sorted({s.version for s in symbols if s.version})) or "none"
                raise SymbolError(
                    f"{self.path} has {plain!r}, but not in version {version}: it has {versions}"
                )
            symbols = exact
        elif any(symbol.default for symbol in symbols):
            symbols = [symbol for symbol in symbols if symbol.default]
        if not symbols:
            raise SymbolError(self._missing(plain))
        if len({symbol.address for symbol in symbols}) > 1:
            places = ", ".join(
                f"{plain}@{s.version}" if s.version else f"offset={self._in_file(s.address):#x}"
                for s in symbols
            )
            raise SymbolError(f"{self.path} has several functions {plain!r}: say which, {places}")
        return symbols[0]

    def _missing(self, name: str) -> str:
        if name in self._tables.imports:
            return (
                f"{self.path} calls {name!r} of another library: pass that library as binary= "
                "(and pid= to see this process alone)"
            )
        if not self.functions:
            return (
                f"{self.path} is stripped and has no debug file in {DEBUG_FOLDER}: it has no names "
                "of functions; pass offset= in the file"
            )
        near = near_source_names(name, self.functions)
        near = near or near_matches(name, self.functions) + unread_names(self.functions)
        return f"{self.path} has no function {name!r}{near}"

    def _in_file(self, address: int) -> int:
        for start, size, offset in self._tables.segments:
            if start <= address < start + size:
                return address - start + offset
        raise SymbolError(f"{self.path} has nothing at the address {address:#x}")


@lru_cache(maxsize=16)
def _binary(path: Path, _mtime: int, _size: int) -> Binary:
    return Binary(path, read_tables(path))


_ASK = """
import ctypes, sys
library, name = ctypes.CDLL(sys.argv[1]), sys.argv[2]
address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
for line in open("/proc/self/maps"):
    span, _, offset, _, _, *path = line.split()
    start, end = (int(part, 16) for part in span.split("-"))
    if start <= address < end:
        print(address - start + int(offset, 16), path[0] if path else "")
"""
"""Run in a process of its own: loading a library runs its constructors."""


def _implementation(path: Path, name: str) -> int:
    """Return where the function begins that an IFUNC chooses on this machine."""
    command = [sys.executable, "-c", _ASK, str(path), name]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    offset, _, place = answer.stdout.strip().partition(" ")
    if answer.returncode or not offset or Path(place).resolve() != path.resolve():
        raise SymbolError(
            f"{name!r} of {path} is chosen when the program starts (an IFUNC), and which function "
            "that is cannot be found out here; pass offset=, or the chosen function's own name"
        )
    return int(offset)
