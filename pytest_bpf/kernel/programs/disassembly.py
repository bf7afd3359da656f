"""BPF instructions as text, in the notation of the kernel's verifier."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
"""Classes of instructions (``BPF_CLASS``)."""

ALU_OPERATORS = ("+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=")
JUMPS = ("goto", "==", ">", ">=", "&", "!=", "s>", "s>=", "call", "exit", "<", "<=", "s<", "s<=")
SIZES = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
SIGNED = {0x00: "s32", 0x08: "s16", 0x10: "s8"}
ATOMICS = {0x00: "add", 0x40: "or", 0x50: "and", 0xA0: "xor"}
SYMBOLS = {0x00: "+=", 0x40: "|=", 0x50: "&=", 0xA0: "^="}
FETCH, XCHG, CMPXCHG, LOAD_ACQUIRE, STORE_RELEASE = 0x01, 0xE1, 0xF1, 0x100, 0x110
IMM64, ATOMIC, MEMSX = 0x18, 0xC0, 0x80
PSEUDO_CALL, PSEUDO_KFUNC = 1, 2
ADDRESS_SPACE_CAST, ADDRESS_PERCPU = 1, -1
"""Moves that are none: ``off`` of ``BPF_MOV`` (``BPF_ADDR_SPACE_CAST``, ``BPF_ADDR_PERCPU``)."""

BASE = "__bpf_call_base"


def disassemble(
    code: bytes, call_name: Callable[[int], str] | None = None
) -> list[tuple[int, bytes, str]]:
    """Return each instruction's number, bytes and text; one of 64-bit constants takes two numbers.

    ``call_name`` names a helper by the number in its call, as the kernel gives it.
    """
    instructions = []
    at = 0
    while at < len(code):
        wide = code[at] == IMM64 | LD
        raw = code[at : at + (16 if wide else 8)]
        text = f"({code[at]:02x}) {_text(raw, call_name or kernel_symbol)}"
        instructions.append((at // 8, raw, text))
        at += len(raw)
    return instructions


def _text(raw: bytes, call_name: Callable[[int], str]) -> str:
    code, registers, offset, value = struct.unpack_from("=BBhi", raw)
    kind, target, source = code & 7, registers & 15, registers >> 4
    if kind in {ALU, ALU64}:
        return _arithmetic(code, target, source, offset, value)
    if kind in {JMP, JMP32}:
        return _jump(code, target, source, offset, value, call_name)
    if kind == LD:
        return _constant(raw, target, source, value)
    return _memory(code, target, source, offset, value)


def _arithmetic(code: int, target: int, source: int, offset: int, value: int) -> str:
    operation, letter = code >> 4, "r" if code & 7 == ALU64 else "w"
    place = f"{letter}{target}"
    if operation == 0x8:
        return f"{place} = -{place}"
    if operation == 0xD:
        order = "bswap" if code & 7 == ALU64 else "be" if code & 8 else "le"
        return f"r{target} = {order}{value} r{target}"
    if operation >= len(ALU_OPERATORS):
        return "unknown"
    operator = ALU_OPERATORS[operation]
    if not code & 8:
        return f"{place} {operator} {value}"
    if operation == 0xB and offset in {8, 16, 32}:
        return f"{place} = (s{offset}){letter}{source}"
    if operation == 0xB and offset == ADDRESS_PERCPU:
        return f"{place} = &(void __percpu *)({letter}{source})"
    if operation == 0xB and offset == ADDRESS_SPACE_CAST:
        return f"{place} = addr_space_cast({letter}{source}, {value >> 16}, {value & 0xFFFF})"
    if operation in {0x3, 0x9} and offset == 1:
        operator = f"s{operator}"
    return f"{place} {operator} {letter}{source}"


def _jump(  # noqa: PLR0917 (the fields of one instruction, in its order)
    code: int, target: int, source: int, offset: int, value: int, call_name: Callable[[int], str]
) -> str:
    operation, letter = code >> 4, "r" if code & 7 == JMP else "w"
    if operation == 0x8:
        if source == PSEUDO_CALL:  # a JIT keeps the distance in the offset
            return f"call pc{offset or value:+d}"
        return f"call kernel-function#{value}" if source == PSEUDO_KFUNC else call_name(value)
    if operation == 0x9:
        return "exit"
    if operation == 0x0:
        return f"goto pc{offset:+d}" if code & 7 == JMP else f"gotol pc{value:+d}"
    if operation >= len(JUMPS):
        return f"may_goto pc{offset:+d}"
    other = f"{letter}{source}" if code & 8 else f"{value & 0xFFFFFFFF:#x}"
    return f"if {letter}{target} {JUMPS[operation]} {other} goto pc{offset:+d}"


def _constant(raw: bytes, target: int, source: int, value: int) -> str:
    if raw[0] != IMM64 | LD:
        return (
            f"r0 = *({SIZES[raw[0] & 0x18]} *)skb[{'' if raw[0] & 0xE0 == 0x20 else 'r + '}{value}]"
        )
    upper = struct.unpack_from("=i", raw, 12)[0]
    if source in {1, 5}:
        return f"r{target} = map[id:{value}]"
    if source in {2, 6}:
        return f"r{target} = map[id:{value}][0]+{upper}"
    if source == 4:
        return f"r{target} = subprog[{value:+d}]"
    return f"r{target} = {(upper & 0xFFFFFFFF) << 32 | value & 0xFFFFFFFF:#x}"


def _memory(code: int, target: int, source: int, offset: int, value: int) -> str:
    kind, mode = code & 7, code & 0xE0
    size = SIZES[code & 0x18]
    if kind == LDX:
        signed = SIGNED.get(code & 0x18, size) if mode == MEMSX else size
        return f"r{target} = *({signed} *)(r{source} {offset:+d})"
    place = f"*({size} *)(r{target} {offset:+d})"
    if kind == ST:
        return f"{place} = {value}"
    return (
        _atomic(size, target, source, offset, value) if mode == ATOMIC else f"{place} = r{source}"
    )


def _atomic(size: str, target: int, source: int, offset: int, value: int) -> str:
    place = f"({size} *)(r{target} {offset:+d})"
    bits = "64" if size == "u64" else ""
    if value in SYMBOLS:
        return f"lock *{place} {SYMBOLS[value]} r{source}"
    if value == XCHG:
        return f"r{source} = atomic{bits}_xchg({place}, r{source})"
    if value == CMPXCHG:
        return f"r0 = atomic{bits}_cmpxchg({place}, r0, r{source})"
    if value == LOAD_ACQUIRE:
        return f"r{target} = load_acquire(({size} *)(r{source} {offset:+d}))"
    if value == STORE_RELEASE:
        return f"store_release({place}, r{source})"
    name = ATOMICS.get(value & ~FETCH, "unknown")
    return f"r{source} = atomic{bits}_fetch_{name}({place}, r{source})"


def kernel_symbol(value: int) -> str:
    """Return a call of the kernel by the distance of the function from ``__bpf_call_base``."""
    symbols = _symbols()
    base = symbols.get(BASE)
    name = _names().get(base + value) if base and value else None
    return f"call {name}" if name else f"call unknown#{value}"


@cache
def _symbols() -> dict[str, int]:
    """Return the addresses of the kernel's functions by name; empty where they are hidden."""
    symbols: dict[str, int] = {}
    with open("/proc/kallsyms", encoding="ascii", errors="replace") as lines:  # noqa: PTH123 (line by line)
        for line in lines:
            address, kind, name, *_ = line.split()
            if kind in "tTwW" and address.strip("0"):
                symbols.setdefault(name, int(address, 16))
    return symbols


@cache
def _names() -> dict[int, str]:
    return {address: name for name, address in _symbols().items()}
