"""Machine code as LLVM writes it, for tests that compare it with a text word for word.

capstone writes the same instructions with other spaces and numbers. LLVM's library comes with clang
(``libLLVM``); its interface in C is loaded by the first call.
"""

from __future__ import annotations

import ctypes
import os
import re
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import UnavailableError
from pytest_bpf.objects.programs.dumps import machine_code

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS = {"x86_64": "X86", "aarch64": "AArch64", "riscv64": "RISCV", "s390x": "SystemZ"}
"""LLVM's names, by those of ``uname -m``."""

FOLDERS = (
    "/usr/lib/llvm-*/lib",
    "/usr/lib/*-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)
"""Where libLLVM lies."""

IMMEDIATES_IN_HEX = 2
"""``LLVMDisassembler_Option_PrintImmHex``."""

BRANCH = 1
"""``LLVMDisassembler_ReferenceType_In_Branch``."""

MOST_LABELS = 32
BYTES_COLUMN = 12 * 3
LINE = 256

_Lookup = CFUNCTYPE(c_void_p, c_void_p, c_uint64, POINTER(c_uint64), c_uint64, POINTER(c_char_p))
"""``LLVMSymbolLookupCallback``."""

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "LLVMGetDefaultTargetTriple": (c_void_p,),
    "LLVMDisposeMessage": (None, c_void_p),
    "LLVMCreateDisasm": (c_void_p, c_char_p, c_void_p, c_int, c_void_p, _Lookup),
    "LLVMSetDisasmOptions": (c_int, c_void_p, c_uint64),
    "LLVMDisasmInstruction": (
        *(c_size_t, c_void_p, c_void_p, c_uint64),
        *(c_uint64, c_char_p, c_size_t),
    ),
    "LLVMDisasmDispose": (None, c_void_p),
}


def machine_text(fd: int, name: str) -> str:
    r"""Return the machine code of a program and its functions as the kernel's test_loader reads it.

    Each line has the offset, the bytes, and after a tab the instruction in LLVM's own syntax, where
    a jump within the function goes to ``L0``, ``L1``, ... Raises `UnavailableError` without
    libLLVM, without a JIT, and where the kernel does not show the code.
    """
    library = _library()
    lines = []
    for number, (_, code) in enumerate(machine_code(fd, name)):
        lines += [f"func #{number}:", *_function(library, code), ""]
    return "".join(f"{line}\n" for line in lines)


@cache
def _library() -> ctypes.CDLL:
    target = TARGETS.get(os.uname().machine)
    if target is None:
        raise UnavailableError(
            f"machine code of {os.uname().machine} is not compared: that of {', '.join(TARGETS)} is"
        )
    for path in _candidates():
        try:
            library = ctypes.CDLL(str(path))
            for part in ("TargetInfo", "Target", "TargetMC", "Disassembler"):
                getattr(library, f"LLVMInitialize{target}{part}")()
            for function, (result, *arguments) in _SIGNATURES.items():
                getattr(library, function).restype = result
                getattr(library, function).argtypes = arguments
        except (OSError, AttributeError):
            continue
        return library
    raise UnavailableError(
        "machine code is compared as LLVM writes it, and libLLVM is not installed: install "
        "Debian's or Ubuntu's clang or llvm"
    )


def _candidates() -> list[Path]:
    """Return the libraries that are here, the newest version first."""
    root = Path("/")
    files = {
        file.resolve()
        for folder in FOLDERS
        for file in root.glob(f"{folder[1:]}/libLLVM*.so*")
        if re.fullmatch(r"libLLVM(-\d[\d.]*)?\.so(\.\d[\d.]*)?", file.name)
    }
    return sorted(files, key=_version, reverse=True)


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.name))


def _function(library: ctypes.CDLL, code: bytes) -> Iterator[str]:
    """Yield the lines of one function."""
    targets: set[int] = set()
    labels: dict[int, ctypes.Array[ctypes.c_char]] = {}

    def symbol(_data: Any, value: int, kind: Any, _pc: int, name: Any) -> int | None:
        branches = kind[0] == BRANCH
        kind[0], name[0] = 0, None
        if not branches:
            return None
        if value < len(code) and len(targets) < MOST_LABELS:
            targets.add(value)
        return ctypes.addressof(labels[value]) if value in labels else None

    triple = library.LLVMGetDefaultTargetTriple()
    callback = _Lookup(symbol)
    context = library.LLVMCreateDisasm(ctypes.string_at(triple), None, 0, None, callback)
    library.LLVMDisposeMessage(triple)
    if not context:
        raise UnavailableError("libLLVM does not disassemble this machine's code")
    try:
        library.LLVMSetDisasmOptions(context, IMMEDIATES_IN_HEX)
        list(_instructions(library, context, code))
        for number, target in enumerate(sorted(targets)):
            labels[target] = ctypes.create_string_buffer(f"L{number}".encode())
        for at, raw, text in _instructions(library, context, code):
            label = f"{labels[at].value.decode()}:" if at in labels else ""
            shown = "".join(f"{byte:02x} " for byte in raw)
            yield f"{at:x}:\t{shown:<{BYTES_COLUMN}}{label}{text}"
    finally:
        library.LLVMDisasmDispose(context)


def _instructions(
    library: ctypes.CDLL, context: int, code: bytes
) -> Iterator[tuple[int, bytes, str]]:
    """Yield offset, bytes and text of each instruction; stop at bytes that are none."""
    image = (ctypes.c_uint8 * len(code)).from_buffer_copy(code)
    line = ctypes.create_string_buffer(LINE)
    at = 0
    while at < len(code):
        size = library.LLVMDisasmInstruction(
            context, ctypes.addressof(image) + at, len(code) - at, at, line, LINE
        )
        if not size:
            yield at, code[at:], "\t(no instruction)"
            return
        yield at, code[at : at + size], line.value.decode(errors="replace")
        at += size
