"""What a loaded program is: by libbpf's pointer, or by what the kernel knows of a descriptor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.kernel import btf
from pytest_bpf.kernel.btf.enums import program_type_name
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.info import ProgramInfo, first_function, read_info

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Btf, Type


@dataclass(frozen=True)
class Identity:
    """What a loaded program is, whoever loaded it.

    ``type`` is libbpf's name (``"xdp"``, ``"tracepoint"``), ``section`` the ELF section that says
    it, or the type again where nobody knows the section. ``pointer`` is libbpf's
    ``struct bpf_program *``, 0 for a program that libbpf did not load here.
    """

    fd: int
    name: str
    type: str
    section: str
    expected_attach_type: int = 0
    pointer: int = 0


def libbpf_identity(pointer: int) -> Identity:
    """Return what libbpf knows of a program that it loaded."""
    section: bytes = libbpf.call("bpf_program__section_name", pointer)
    return Identity(
        fd=libbpf.call("bpf_program__fd", pointer),
        name=libbpf.call("bpf_program__name", pointer).decode(errors="replace"),
        type=program_type(pointer),
        section=section.decode(errors="replace"),
        expected_attach_type=libbpf.call("bpf_program__expected_attach_type", pointer),
        pointer=pointer,
    )


def kernel_identity(fd: int) -> tuple[Identity, Type | None]:
    """Return what the kernel knows of a program, and what its argument points to by its BTF."""
    info = read_info(fd, ProgramInfo)
    types = btf.btf_by_id(info.btf_id)
    name, kind = full_name(fd, info, types), program_type_name(info.type)
    return Identity(fd, name, kind, section=kind), context_type(fd, name)


def context_type(fd: int, name: str) -> Type | None:
    """Return what the argument of a program points to, by the BTF that the kernel keeps of it."""
    types = btf.btf_by_id(read_info(fd, ProgramInfo).btf_id)
    return types.first_parameter(name) if types else None


def full_name(fd: int, info: ProgramInfo, types: Btf | None) -> str:
    """Return a program's name: its function's in the BTF, else the 15 characters kept of it."""
    function = first_function(fd) if types else 0
    return (types.name(function) if types and function else "") or info.name.decode(
        errors="replace"
    )


def program_type(pointer: int) -> str:
    """Return libbpf's name of a program's type, as in ``"xdp"``."""
    return program_type_name(libbpf.call("bpf_program__type", pointer))
