"""Stack traces: what a stack_trace map holds, and the functions that the addresses are in."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpf.errors import MapError, UnavailableError
from pytest_bpf.objects.symbols import Binary, SymbolError

KALLSYMS = Path("/proc/kallsyms")

KERNEL = 1 << 63
"""Addresses from here on are the kernel's."""


@dataclass(frozen=True)
class Frame:
    """One address of a stack, and where it is.

    ``function`` is "" where it is not known, ``offset`` how many bytes into it, and ``file`` a
    path, a module in brackets, or "" for the kernel itself.
    """

    address: int
    function: str = ""
    offset: int = 0
    file: str = ""

    def __str__(self) -> str:
        name = f"{self.function}+{self.offset:#x}" if self.function else f"{self.address:#x}"
        return f"{name} {self.file}".rstrip()


class StackTrace(tuple[int, ...]):
    """The addresses of a stack, the innermost first; `frames` says which functions they are in."""

    __slots__ = ()

    def frames(self, pid: int | None = None) -> tuple[Frame, ...]:
        """Return the function of each address, in the same order.

        The kernel's come from ``/proc/kallsyms``; those of user space from the binaries that the
        process ``pid`` has mapped now, which must still run. Addresses in what has no symbols have
        an empty ``function``. Raises `MapError` for user addresses without ``pid`` or when there is
        no such process, and `UnavailableError` when the kernel hides its addresses.
        """
        kernel = kernel_symbols() if any(address >= KERNEL for address in self) else []
        mapped = []
        if any(address < KERNEL for address in self):
            if pid is None:
                raise MapError("a stack has addresses of user space: frames(pid=...) names them")
            mapped = _mappings(pid)
        return tuple(
            _kernel_frame(address, kernel) if address >= KERNEL else _user_frame(address, mapped)
            for address in self
        )


def stack_trace(addresses: Any) -> StackTrace:
    """Return a map's value without the zeros at its end."""
    values = tuple(addresses)
    return StackTrace(values[: values.index(0)] if 0 in values else values)


def kernel_symbols() -> list[tuple[int, str, str]]:
    """Return the (address, name, module) of the kernel's functions, by address."""
    symbols = []
    for line in KALLSYMS.read_text(encoding="utf-8").splitlines():
        address, kind, name, *module = line.split()
        if kind in "tTwW":
            symbols.append((int(address, 16), name, module[0] if module else ""))
    symbols.sort()
    if not symbols or not symbols[-1][0]:
        raise UnavailableError(
            f"{KALLSYMS} has no addresses: the kernel shows them to root, with "
            "kernel.kptr_restrict 0 or 1"
        )
    return symbols


def _kernel_frame(address: int, symbols: list[tuple[int, str, str]]) -> Frame:
    at = bisect.bisect_right(symbols, address, key=lambda symbol: symbol[0]) - 1
    if at < 0:
        return Frame(address)
    start, name, module = symbols[at]
    return Frame(address, name, address - start, module)


def _mappings(pid: int) -> list[tuple[int, int, int, str]]:
    """Return the (start, end, offset in the file, path) of a process's mappings of code."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MapError(
            f"the functions of process {pid} cannot be looked up: {error.strerror}; it must run"
        ) from None
    mapped = []
    for line in lines:
        place, rights, offset, _, _, *path = line.split(maxsplit=5)
        if "x" in rights:
            start, end = (int(part, 16) for part in place.split("-"))
            mapped.append((start, end, int(offset, 16), path[0] if path else ""))
    return mapped


def _user_frame(address: int, mapped: list[tuple[int, int, int, str]]) -> Frame:
    for start, end, offset, path in mapped:
        if not start <= address < end:
            continue
        try:
            binary = Binary.read(Path(path))
            inside = binary.address(address - start + offset)
        except SymbolError:
            return Frame(address, file=path)
        at = bisect.bisect_right(binary.starts, inside, key=lambda symbol: symbol[0]) - 1
        if at < 0:
            return Frame(address, file=path)
        begin, name = binary.starts[at]
        return Frame(address, name, inside - begin, path)
    return Frame(address)
