"""What the kernel runs of a program: its instructions and its machine code, with source lines."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.btf import btf_by_id
from pytest_bpf.kernel.programs.disassembly import disassemble
from pytest_bpf.kernel.sys.info import ProgramInfo, fill_info, read_info

if TYPE_CHECKING:
    from collections.abc import Iterator


_T = TypeVar("_T")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a dump.

    ``offset`` is its number (xlated) or its distance in bytes from the function's start (jited),
    ``code`` its bytes, ``text`` what it does. ``function`` is the function that it is in. ``file``,
    ``line`` and ``source`` are the line of C that it was made of (empty and 0 where that is not
    told).
    """

    offset: int
    code: bytes
    text: str
    function: str
    file: str = ""
    line: int = 0
    source: str = ""


class Listing(tuple[Instruction, ...]):
    """The instructions of a program in their order; its text has the source lines between them."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        function, place = None, None
        for instruction in self:
            if instruction.function != function:
                function = instruction.function
                yield f"{function}:"
            if instruction.line and (instruction.file, instruction.line) != place:
                place = (instruction.file, instruction.line)
                yield f"; {instruction.source} @ {os.path.basename(place[0])}:{place[1]}"  # noqa: PTH119 (a name from BTF)
            yield f"{instruction.offset:4}: {instruction.text}"


@dataclass(frozen=True)
class _Line:
    file: str
    line: int
    source: str


@dataclass(frozen=True)
class _Arrays:
    """What the kernel fills in: ``struct bpf_prog_info`` and the arrays that it points to."""

    info: ProgramInfo
    code: bytes
    functions: list[tuple[int, str]]
    lines: list[tuple[int, _Line]]
    starts: list[int]
    lengths: list[int]
    addresses: list[int]


def xlated(fd: int, name: str) -> Listing:
    """Return a program's instructions as the verifier left them.

    Raises `UnavailableError` where the kernel does not show them (without CAP_SYS_ADMIN or
    CAP_PERFMON).
    """
    arrays = _read(fd, jited=False)
    if not any(arrays.code):
        raise UnavailableError(
            f"program {name!r}: the kernel does not show its instructions to this process; "
            "run as root"
        )
    return Listing(
        Instruction(
            at, raw, text, _at(arrays.functions, at) or name, **vars(_at(arrays.lines, at) or _NONE)
        )
        for at, raw, text in disassemble(arrays.code)
    )


def jited(fd: int, name: str) -> Listing:
    """Return a program's machine code, disassembled by capstone, for x86-64 and arm64.

    Raises `UnavailableError` without capstone, without a JIT, where the kernel does not show the
    code, and on other machines.
    """
    machine = _capstone()
    arrays = _machine_code(fd, name)
    names = [function for _, function in arrays.functions] or [name]
    lines = list(zip(arrays.addresses, (line for _, line in arrays.lines), strict=False))
    lengths = arrays.lengths or [len(arrays.code)]
    instructions, begin = [], 0
    for number, length in enumerate(lengths):
        start = arrays.starts[number] if number < len(arrays.starts) else 0
        function = names[number] if number < len(names) else name
        mine = [(address - start, line) for address, line in lines if 0 <= address - start < length]
        for one in machine.disasm(arrays.code[begin : begin + length], 0):
            line = _at(mine, one.address) or _NONE
            text = f"{one.mnemonic} {one.op_str}".strip()
            instructions.append(
                Instruction(one.address, bytes(one.bytes), text, function, **vars(line))
            )
        begin += length
    return Listing(instructions)


def machine_code(fd: int, name: str) -> list[tuple[str, bytes]]:
    """Return a program's functions: each one's name and its machine code.

    Raises `UnavailableError` without a JIT, and where the kernel does not show the code.
    """
    arrays = _machine_code(fd, name)
    names = [function for _, function in arrays.functions]
    functions, begin = [], 0
    for number, length in enumerate(arrays.lengths or [len(arrays.code)]):
        function = names[number] if number < len(names) else name
        functions.append((function, arrays.code[begin : begin + length]))
        begin += length
    return functions


def _machine_code(fd: int, name: str) -> _Arrays:
    arrays = _read(fd, jited=True)
    if not any(arrays.code):
        why = (
            "there is no JIT"
            if not arrays.info.jited_prog_len
            else (
                "the kernel does not show it to this process: run as root, with "
                "net.core.bpf_jit_harden and kernel.kptr_restrict at 0"
            )
        )
        raise UnavailableError(f"program {name!r}: no machine code: {why}")
    return arrays


_NONE = _Line("", 0, "")


def _read(fd: int, *, jited: bool) -> _Arrays:
    """Ask the kernel for the sizes of its arrays, and then for the arrays."""
    sizes = read_info(fd, ProgramInfo)
    length = sizes.jited_prog_len if jited else sizes.xlated_prog_len
    code = (ctypes.c_uint8 * length)()
    info = ProgramInfo()
    if jited:
        info.jited_prog_len, info.jited_prog_insns = length, ctypes.addressof(code)
    else:
        info.xlated_prog_len, info.xlated_prog_insns = length, ctypes.addressof(code)
    arrays = {
        array: (
            ctypes.c_uint8 * (getattr(sizes, count) * (getattr(sizes, size) if size else wide))
        )()
        for array, count, size, wide in _ARRAYS
        if getattr(sizes, count)
    }
    for array, count, size, _ in _ARRAYS:
        if array in arrays:
            setattr(info, array, ctypes.addressof(arrays[array]))
            setattr(info, count, getattr(sizes, count))
            if size:
                setattr(info, size, getattr(sizes, size))
    fill_info(fd, info)
    btf = btf_by_id(sizes.btf_id)
    records = {array: bytes(buffer) for array, buffer in arrays.items()}
    return _Arrays(
        info,
        bytes(code),
        [(words[0], btf.name(words[1])) for words in _words(records, "func_info", sizes) if btf],
        [
            (words[0], _Line(btf.text(words[1]), words[3] >> 10, btf.text(words[2]).strip()))
            for words in _words(records, "line_info", sizes)
            if btf
        ],
        [start for (start,) in struct.iter_unpack("=Q", records.get("jited_ksyms", b""))],
        [length for (length,) in struct.iter_unpack("=I", records.get("jited_func_lens", b""))],
        [address for (address,) in struct.iter_unpack("=Q", records.get("jited_line_info", b""))],
    )


_ARRAYS = (
    ("func_info", "nr_func_info", "func_info_rec_size", 0),
    ("line_info", "nr_line_info", "line_info_rec_size", 0),
    ("jited_line_info", "nr_jited_line_info", "jited_line_info_rec_size", 0),
    ("jited_ksyms", "nr_jited_ksyms", "", 8),
    ("jited_func_lens", "nr_jited_func_lens", "", 4),
)
"""Arrays of ``struct bpf_prog_info``, their counts, and the sizes of their records."""


def _words(records: dict[str, bytes], array: str, sizes: ProgramInfo) -> Iterator[tuple[int, ...]]:
    """Yield the records of an array as 32-bit words."""
    content, size = records.get(array, b""), int(getattr(sizes, f"{array}_rec_size"))
    for at in range(0, len(content), size or 1):
        yield struct.unpack_from(f"={size // 4}I", content, at)


def _at(table: list[tuple[int, _T]], offset: int) -> _T | None:
    """Return the last entry that starts at or before ``offset``."""
    before = [value for start, value in table if start <= offset]
    return before[-1] if before else None


def _capstone() -> Any:
    try:
        import capstone  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UnavailableError(
            "machine code is disassembled by capstone, which is not installed: "
            "pip install 'pytest-bpf[disasm]'"
        ) from None
    machine = os.uname().machine
    if machine == "x86_64":
        return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    if machine == "aarch64":
        return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    raise UnavailableError(f"machine code of {machine} is not disassembled: x86_64 and aarch64 are")
