"""Where the members of the running kernel's structs lie, by its BTF."""

from __future__ import annotations

from functools import cache

from pytest_bpf.errors import UnavailableError, UnknownNameError
from pytest_bpf.kernel.btf import Struct, vmlinux


@cache
def kernel_struct(name: str) -> Struct:
    """Return ``struct NAME`` of the running kernel; raises `UnavailableError` where it has none.

    Kept, because looking for a type goes through all of the kernel's.
    """
    try:
        struct = vmlinux().find(f"struct {name}")
    except UnknownNameError:
        raise UnavailableError(f"this kernel's BTF has no struct {name}") from None
    if not isinstance(struct, Struct):
        raise UnavailableError(f"struct {name} is no struct on this kernel")
    return struct


@cache
def member_offset(struct: str, name: str) -> int:
    """Return the offset in bytes of a member; raises `UnavailableError` where there is none."""
    for member in kernel_struct(struct).flat_members():
        if member.name == name:
            return member.bit_offset // 8
    raise UnavailableError(f"struct {struct} has no member {name} on this kernel")
