"""How many machine instructions each instruction of a program runs as.

The program is loaded once more as it ships, with a line record for each instruction, so that the
kernel tells where the machine code of each one starts.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.programs.flow import is_jump
from pytest_bpf.kernel.sys.info import ProgramInfo, fill_info, read_info
from pytest_bpf.objects.programs.twin import load_numbered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.kernel.programs.flow import Flow, Insn
    from pytest_bpf.objects import Program


@dataclass(frozen=True)
class NativeCode:
    """A program's instructions, and how many machine instructions each one runs as.

    ``lengths`` follow the usual way through what the JIT makes of one instruction: inlined helpers
    and guarded divisions have others.
    """

    flow: Flow
    lengths: Mapping[int, int]


@dataclass(frozen=True)
class _Arrays:
    code: bytes
    functions: dict[int, int]
    starts: dict[int, int]


def native_code(program: Program) -> NativeCode:
    """Return the machine instructions of a program that libbpf loaded in this process.

    Raises `UnavailableError` without capstone, on other machines than x86-64, and where the kernel
    does not show machine code; `LoadError` for a program that cannot be loaded again.
    """
    if os.uname().machine != "x86_64":
        raise UnavailableError("what lines cost in machine instructions is known on x86-64 alone")
    try:
        import capstone  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UnavailableError(
            "machine code is disassembled by capstone, which is not installed: "
            "pip install 'pytest-bpf[disasm]'"
        ) from None
    fd, code = load_numbered(program)
    try:
        arrays = _read(fd)
    finally:
        os.close(fd)
    if not any(arrays.code) or not arrays.starts:
        raise UnavailableError(
            f"program {program.name!r}: the kernel does not show its machine code: run as root, "
            "with the JIT on, net.core.bpf_jit_harden and kernel.kptr_restrict at 0"
        )
    machine, offset = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64), 0
    instructions: dict[int, Any] = {}
    for start, length in arrays.functions.items():
        part = arrays.code[offset : offset + length]
        instructions |= {one.address: one for one in machine.disasm(part, start)}
        offset += length
    return NativeCode(code, _lengths(code, arrays, instructions))


def _lengths(code: Flow, arrays: _Arrays, instructions: Mapping[int, Any]) -> dict[int, int]:
    """Return for each instruction that is left how many machine instructions it runs as."""
    numbers = sorted(arrays.starts)
    lengths = {}
    for position, number in enumerate(numbers):
        start = arrays.starts[number]
        function = max(address for address in arrays.functions if address <= start)
        end = function + arrays.functions[function]
        if position + 1 < len(numbers):
            following = arrays.starts[numbers[position + 1]]
            end = following if function <= following <= end else end
        lengths[number] = _usual_way(code.instructions[number], start, end, instructions)
    return lengths


def _usual_way(insn: Insn, start: int, end: int, instructions: Mapping[int, Any]) -> int:
    """Count the machine instructions from ``start`` up to ``end`` that run as a rule.

    Jumps inside of what one instruction became are taken when they always jump, and when they pass
    the special case of a division; what follows a return is padding.
    """
    divides = insn.code & 7 in {4, 7} and insn.code & 0xF0 in {0x30, 0x90} and insn.code & 8
    count, at = 0, start
    while start <= at < end and at in instructions:
        one = instructions[at]
        if one.mnemonic == "int3":
            break
        count += 1
        at += one.size
        if one.mnemonic == "ret":
            break
        if one.mnemonic.startswith("j") and not is_jump(insn):
            target = int(one.op_str, 16) if one.op_str.startswith("0x") else 0
            always = one.mnemonic == "jmp" or (divides and one.mnemonic == "jne")
            if always and at < target <= end:
                at = target
    return count


def _read(fd: int) -> _Arrays:
    """Return a program's machine code, its functions, and where each instruction starts in it."""
    sizes = read_info(fd, ProgramInfo)
    info = ProgramInfo()
    arrays: dict[str, Any] = {}

    def room(name: str, count: str, size: int, record: str = "") -> None:
        number = getattr(sizes, count)
        arrays[name] = (ctypes.c_uint8 * (number * size))()
        setattr(info, name, ctypes.addressof(arrays[name]))
        setattr(info, count, number)
        if record:
            setattr(info, record, size)

    room("jited_prog_insns", "jited_prog_len", 1)
    room("jited_ksyms", "nr_jited_ksyms", 8)
    room("jited_func_lens", "nr_jited_func_lens", 4)
    room("line_info", "nr_line_info", sizes.line_info_rec_size, "line_info_rec_size")
    room("jited_line_info", "nr_jited_line_info", 8, "jited_line_info_rec_size")
    fill_info(fd, info)
    raw = {name: bytes(content) for name, content in arrays.items()}
    starts = [start for (start,) in struct.iter_unpack("=Q", raw["jited_ksyms"])]
    lengths = [length for (length,) in struct.iter_unpack("=I", raw["jited_func_lens"])]
    size = sizes.line_info_rec_size
    numbers = [
        struct.unpack_from("=I", raw["line_info"], at + 12)[0] >> 10
        for at in range(0, len(raw["line_info"]), size or 1)
    ]
    addresses = [address for (address,) in struct.iter_unpack("=Q", raw["jited_line_info"])]
    return _Arrays(
        raw["jited_prog_insns"],
        dict(zip(starts, lengths, strict=False)),
        dict(zip(numbers, addresses, strict=False)),
    )
