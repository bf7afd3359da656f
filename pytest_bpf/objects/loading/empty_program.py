"""Objects without a compiler: one program of given instructions, as the ELF file libbpf takes."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs import assembly
from pytest_bpf.kinds.programs import pass_value
from pytest_bpf.objects.elf import EM_BPF
from pytest_bpf.objects.loading.open_object import OpenObject
from pytest_bpf.objects.loading.settings import ObjectFile

if TYPE_CHECKING:
    from pytest_bpf.objects.loading.object import Object

PROGBITS, SYMTAB, STRTAB = 1, 2, 3
EXECUTABLE, WRITABLE = 0b110, 0b011
"""Types and flags of sections (``uapi/linux/elf.h``)."""

GLOBAL_FUNCTION = 0x12


def empty_program(section: str, kind: str) -> Object:
    """Load an object with the one program ``empty``, which does nothing and changes nothing.

    ``section`` says its hook, as in ``SEC()``; ``kind`` is its type (``"xdp"``). Raises what
    `OpenObject.load` does.
    """
    instructions = assembly.move(0, pass_value(kind, section)) + assembly.leave()
    file = ObjectFile(Path("empty"), assemble(section, "empty", instructions))
    return OpenObject(file).load()


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    content: bytes
    flags: int = 0
    link: int = 0
    entry: int = 0


def assemble(section: str, name: str, instructions: bytes) -> bytes:
    """Return an object file with the program ``name`` in ``section``, under the GPL."""
    names = b"\0".join((b"", name.encode(), section.encode(), b"license", b".symtab", b".strtab"))
    strings = names + b"\0"
    symbol = (strings.index(name.encode()), GLOBAL_FUNCTION, 0, 1, 0, len(instructions))
    parts = (
        _Section("", 0, b""),
        _Section(section, PROGBITS, instructions, EXECUTABLE),
        _Section("license", PROGBITS, b"GPL\0", WRITABLE),
        _Section(".symtab", SYMTAB, bytes(24) + struct.pack("=IBBHQQ", *symbol), link=4, entry=24),
        _Section(".strtab", STRTAB, strings),
    )
    content, headers = b"", b""
    for part in parts:
        at = 64 + len(content)
        where = strings.index(b"\0" + part.name.encode() + b"\0") + 1 if part.name else 0
        fields = (where, part.kind, part.flags, 0, at, len(part.content))
        headers += struct.pack(
            "=IIQQQQIIQQ", *fields, part.link, 1 if part.link else 0, 8, part.entry
        )
        content += part.content + bytes(-len(part.content) % 8)
    order = 1 if sys.byteorder == "little" else 2
    start = b"\x7fELF" + bytes((2, order, 1)) + bytes(9)
    header = start + struct.pack(
        "=HHIQQQIHHHHHH", 1, EM_BPF, 1, 0, 0, 64 + len(content), 0, 64, 0, 0, 64, len(parts), 4
    )
    return header + content + headers
