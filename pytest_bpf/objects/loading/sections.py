"""Sections of programs that this libbpf does not know: they are registered with it.

What a section says is asked of the table of kinds; whether libbpf knows it is asked of libbpf.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int

from pytest_bpf.kernel.btf.enums import program_type_id
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kinds.flags import ProgramFlags
from pytest_bpf.kinds.programs import SECTIONS, parse_section


@libbpf.per_library
def register_sections() -> frozenset[str]:
    """Register with libbpf the sections that it does not know, and return their prefixes.

    It happens once a process. A section that libbpf knows keeps libbpf's meaning.
    """
    register = libbpf.function("libbpf_register_prog_handler")
    prefixes = [
        prefix + suffix
        for prefix in SECTIONS
        for suffix in ("", ".s")
        if not suffix or SECTIONS[prefix].type in SLEEPABLE_TYPES
    ]
    additions = [prefix for prefix in prefixes if not _is_in_libbpf(prefix)]
    for prefix in additions:
        base = prefix.removesuffix(".s")
        row = SECTIONS[base]
        register(f"{prefix}+".encode(), program_type_id(row.type), row.sections[base], None)
    return frozenset(additions)


SLEEPABLE_TYPES = frozenset({"kprobe", "tracing", "lsm", "struct_ops"})
"""Types of programs that may sleep, in a section with ``.s``."""


def section_flags(section: str) -> ProgramFlags:
    """Return the flags that a section stands for: those of ``.s`` and ``xdp.frags``.

    libbpf sets its own while it loads; those of a section that was registered are set here.
    """
    parsed = parse_section(section)
    if parsed is None:
        return ProgramFlags(0)
    flags = ProgramFlags.SLEEPABLE if parsed.sleepable else ProgramFlags(0)
    return flags | (ProgramFlags.XDP_HAS_FRAGS if parsed.prefix.startswith("xdp.frags") else 0)


def _is_in_libbpf(prefix: str) -> bool:
    by_name = libbpf.function("libbpf_prog_type_by_name")
    numbers = ctypes.byref(c_int()), ctypes.byref(c_int())
    with libbpf.messages():
        return any(by_name(text.encode(), *numbers) == 0 for text in (prefix, f"{prefix}/x"))
