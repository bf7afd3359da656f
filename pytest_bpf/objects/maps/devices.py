"""The values of device maps and CPU maps: an interface or a queue size, and a program behind it.

The kernel looks an interface's index up in the network namespace of whoever writes it, so that an
`Interface` is written from its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError, ValueTypeError, with_article
from pytest_bpf.kernel.btf import Int, Member, Struct, Type
from pytest_bpf.kernel.sys import ids
from pytest_bpf.kernel.values.codec import Record, codec, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = frozenset({"devmap", "devmap_hash", "cpumap"})

_U32 = Int("__u32", 4)
_PROGRAM = Struct("", 4, (Member("fd", Int("int", 4, signed=True), 0), Member("id", _U32, 0)), True)

Run = Callable[..., Any]
"""Calls a function with its arguments, perhaps in another network namespace."""


def value_type(kind: str, size: int) -> Type:
    """Return what the kernel takes for values of this size: a number, or with a program."""
    if size == 4:
        return _U32
    name, member = (
        ("bpf_cpumap_val", "qsize") if kind == "cpumap" else ("bpf_devmap_val", "ifindex")
    )
    return Struct(name, size, (Member(member, _U32, 0), Member("bpf_prog", _PROGRAM, 32)))


def runner(value: Any) -> Run:
    """Return what calls a function where the interface in ``value`` is: in its namespace."""
    namespace: Any = getattr(_split(value)[0], "namespace", None)
    return call_here if namespace is None else namespace.run


def call_here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function here and now."""
    return function(*arguments)


@contextmanager
def device_bytes(kind: str, c_type: Type, value: Any, label: str) -> Iterator[bytes]:
    """Yield a value as the kernel takes it; what was opened for it is closed after.

    ``value`` is an interface (or its index, or the size of a CPU's queue), or that and a program:
    a tuple, a dict by the members of the struct, or a value that was read.
    """
    number, program = _split(value)
    if number is NotImplemented:  # not ours: say what is wrong with it
        yield codec(c_type).encode(value, label)
        return
    number = getattr(number, "ifindex", number)
    if not hasattr(number, "__index__"):
        what = "the size of a queue" if kind == "cpumap" else "an Interface, or its index"
        raise ValueTypeError(f"{label}: {with_article(kind)} takes {what}, not {describe(number)}")
    if not isinstance(c_type, Struct):
        if program is not None:
            raise ValueTypeError(
                f"{label}: it has 4 bytes and no room for a program, whose "
                "descriptor is in values of 8"
            )
        yield codec(c_type).encode(number, label)
        return
    _check_program(kind, program, f"{label}, program")
    with _program_fd(program, f"{label}, program", read=isinstance(value, Record)) as fd:
        raw = codec(_U32).encode(number, f"{label}.{c_type.members[0].name}")
        yield raw + codec(Int("int", 4, signed=True)).encode(fd, label)


def equal(value: Any, other: Any) -> bool:
    """Say whether ``value``, which was read and so has a program's id, is what ``other`` writes."""
    number, program = _split(other)
    number = getattr(number, "ifindex", number)
    if not isinstance(value, Record):
        return program is None and bool(value == number)
    program = program.get("id") if isinstance(program, Mapping) else program
    return bool(value[0] == number and value[1].id == (getattr(program, "id", program) or 0))


def _split(value: Any) -> tuple[Any, Any]:
    """Return the number or interface, and the program or None, of any form of a value."""
    if isinstance(value, Mapping):
        number = next((value[name] for name in ("ifindex", "qsize") if name in value), 0)
        stranger = set(value) - {"ifindex", "qsize", "bpf_prog"}
        return (NotImplemented, None) if stranger else (number, value.get("bpf_prog"))
    if isinstance(value, (tuple, list)):
        return tuple(value) if len(value) == 2 else (NotImplemented, None)
    if hasattr(value, "ifindex") or hasattr(value, "__index__"):
        return value, None
    return (value, None) if isinstance(value, str) else (NotImplemented, None)


def _check_program(kind: str, program: Any, label: str) -> None:
    """Refuse a program of a kind that does not run there, for which the kernel has no sentence."""
    there = "cpumap" if kind == "cpumap" else "devmap"
    program = program.get("fd") if isinstance(program, Mapping) else program
    own: Any = getattr(program, "kind", None)
    if own is not None and own.name != f"xdp_{there}":
        raise MapError(
            f'{label}: in {with_article(kind)} runs a program of SEC("xdp/{there}"), '
            f"and {program.name!r} is one of {own.name}"
        )


@contextmanager
def _program_fd(program: Any, label: str, *, read: bool) -> Iterator[int]:
    """Yield the descriptor of a program; of one that was read, whose value is its id."""
    if isinstance(program, Mapping):
        by_id = "id" in program
        program = program.get("id", program.get("fd"))
    elif isinstance(program, Record):
        by_id, program = True, program[-1]
    else:
        by_id = read
    if by_id and program:
        fd = ids.by_id("prog", int(program))
        try:
            yield fd
        finally:
            os.close(fd)
        return
    fd = getattr(program, "fd", program)
    if fd is not None and not isinstance(fd, int):
        raise ValueTypeError(f"{label}: a program or its descriptor, not {describe(program)}")
    yield fd or 0
