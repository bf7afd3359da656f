"""What a program attaches to, where the kernel wants to know it when the program is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError, UnavailableError, near_matches
from pytest_bpf.kernel import btf
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.info import ProgramInfo, read_info
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.objects.programs.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterable

AT_LOAD = frozenset({"tracing", "ext", "lsm"})
"""Types whose target is fixed by the load; the others' is given to the attachment."""

PREFIXES = {
    AttachType.TRACE_RAW_TP: "btf_trace_",
    AttachType.LSM_MAC: "bpf_lsm_",
    AttachType.TRACE_ITER: "bpf_iter_",
}
"""What stands before a target's name in the BTF, by the expected attach type."""

SHAPES = "a function's name, or (program, 'function')"


def is_fixed_by_load(kind: str, target: Any) -> bool:
    """Say whether a program of type ``kind`` is told its target when it is loaded."""
    return kind in AT_LOAD and isinstance(target, (str, tuple, list, Program))


def set_attach_target(where: str, pointer: int, kind: str, target: Any) -> None:
    """Set what a program of type ``kind`` attaches to; nothing where `attach` takes it.

    Raises `LoadError` with near names for a function that does not exist.
    """
    if not is_fixed_by_load(kind, target):
        return
    if isinstance(target, str):
        _set_kernel_function(where, pointer, target)
        return
    pair = (target, None) if isinstance(target, Program) else tuple(target)
    if len(pair) != 2 or not isinstance(pair[0], Program) or not isinstance(pair[1], str):
        raise LoadError(f"{where}: it cannot attach to {target!r}: pass {SHAPES}")
    program, function = pair
    try:
        libbpf.call("bpf_program__set_attach_target", pointer, program.fd, function.encode())
    except OSError as error:
        raise LoadError(
            f"{where} cannot attach to function {function!r} of program {program.name!r}: "
            f"{libbpf.reason(error.errno or 0)}; it must be a global function there"
            f"{_near(function, _functions(program))}",
            error.errno or 0,
        ) from None


def _set_kernel_function(where: str, pointer: int, target: str) -> None:
    """Set a function of the kernel or of a module: ``"vfs_read"``, ``"veth:veth_xmit"``."""
    code = 0
    for name in dict.fromkeys((target, target.rpartition(":")[2])):
        with libbpf.messages():
            try:
                libbpf.call("bpf_program__set_attach_target", pointer, 0, name.encode())
            except OSError as error:
                code = error.errno or 0
                continue
        return
    attach_type = libbpf.call("bpf_program__expected_attach_type", pointer)
    prefix = PREFIXES.get(attach_type, "")
    try:
        names = [
            name.removeprefix(prefix)
            for name in btf.vmlinux().attachable()
            if name.startswith(prefix)
        ]
    except UnavailableError:
        names = []
    raise LoadError(
        f"{where} cannot attach to {target!r}: the kernel and its modules have no such function "
        f"in their BTF ({libbpf.reason(code)}){_near(target, names)}",
        code,
    )


def _functions(program: Program) -> Iterable[str]:
    types = btf.btf_by_id(read_info(program.fd, ProgramInfo).btf_id)
    return types.functions() if types else ()


def _near(name: str, names: Iterable[str]) -> str:
    """Return what is near, of the names that begin alike: the kernel has 60,000."""
    hint = near_matches(name, [other for other in names if other[:2] == name[:2]])
    return hint if "did you mean" in hint else ""
