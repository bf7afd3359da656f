"""Programs and maps that others made: found by id or by pin, and what the kernel knows of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError, MapError
from pytest_bpf.kernel import btf, ids, libbpf
from pytest_bpf.kernel.info import ProgramInfo, first_function, read_info
from pytest_bpf.objects.loaded import Identity, type_name

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Btf, Type
    from pytest_bpf.kernel.ids import Kind

WORDS = {"prog": "program", "map": "map"}
_ERRORS = {"prog": LoadError, "map": MapError}


def by_id(kind: Kind, number: int) -> int:
    """Return a descriptor of the program or map with this id.

    Raises `LoadError` or `MapError` when there is none.
    """
    try:
        return ids.opened(kind, number)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise _ERRORS[kind](f"there is no {WORDS[kind]} with id {number}: {why}") from None


def by_pin(kind: Kind, path: str | os.PathLike[str]) -> int:
    """Return a descriptor of the program or map pinned to a path; the errors of `by_id`."""
    what, error_type = f"there is no {WORDS[kind]} pinned to {os.fspath(path)}", _ERRORS[kind]
    try:
        fd = int(libbpf.call("bpf_obj_get", os.fsencode(path)))
    except OSError as error:
        raise error_type(f"{what}: {error.strerror}") from None
    if Path(f"/proc/self/fd/{fd}").readlink().name.endswith(f"bpf-{kind}"):
        return fd
    os.close(fd)
    raise error_type(f"{what}, but something else")


def known(fd: int) -> tuple[Identity, Type | None]:
    """Return what the kernel knows of a program, and what its argument points to by its BTF."""
    info = read_info(fd, ProgramInfo)
    types = btf.in_kernel(info.btf_id)
    name, kind = full_name(fd, info, types), type_name(info.type)
    return Identity(fd, name, kind, section=kind), context_type(fd, name)


def context_type(fd: int, name: str) -> Type | None:
    """Return what the argument of a program points to, by the BTF that the kernel keeps of it."""
    types = btf.in_kernel(read_info(fd, ProgramInfo).btf_id)
    return types.first_parameter(name) if types else None


def full_name(fd: int, info: ProgramInfo, types: Btf | None) -> str:
    """Return a program's name: its function's in the BTF, else the 15 characters kept of it."""
    function = first_function(fd) if types else 0
    return (types.name(function) if types and function else "") or info.name.decode(
        errors="replace"
    )


def pin(fd: int, what: str, path: str | os.PathLike[str]) -> None:
    """Pin a map to a path; `MapError` when something is there, or the path is on no bpffs."""
    try:
        libbpf.call("bpf_obj_pin", fd, os.fsencode(path))
    except OSError as error:
        code = error.errno or 0
        why = {
            errno.EEXIST: "something is pinned there",
            errno.EPERM: "that is on no bpf file system",
        }.get(code, error.strerror)
        raise MapError(f"{what}: pinning to {os.fspath(path)} failed: {why}", code) from None
