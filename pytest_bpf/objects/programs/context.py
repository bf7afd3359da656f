"""The context of a test run: from a Python value to the kernel's struct, and back."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import RunError, UnavailableError, ValueTypeError
from pytest_bpf.kernel.btf import Struct
from pytest_bpf.kernel.btf.offsets import kernel_struct
from pytest_bpf.kernel.values.codec import Record, codec
from pytest_bpf.objects.link.targets import InterfaceTarget

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.programs.loaded import LoadedProgram

FLOW_DISSECTOR = "flow_dissector"
RUN_CONTEXTS = {"netfilter": "nf_hook_state", FLOW_DISSECTOR: "bpf_flow_keys"}
"""Program types whose test run takes another struct than the program itself."""

RAW_TRACEPOINTS = frozenset({"raw_tracepoint", "raw_tracepoint_writable"})


@dataclass(frozen=True)
class Context:
    """A context as the kernel takes it: its bytes and type, and the namespace of its interfaces."""

    raw: bytes = b""
    type: Type | None = None
    namespace: Any = None

    def decode(self, raw: bytes) -> Any:
        """Return the bytes that the kernel gave back as a value; None without a context."""
        if not self.raw:
            return None
        if self.type is None:
            return raw
        return codec(self.type).decode(raw.ljust(self.type.size, b"\0"), 0)


NO_CONTEXT = Context()


def encode_context(program: LoadedProgram, context: Any, size: int) -> Context:
    """Return a context for a run with ``size`` bytes of data.

    Its struct is the kernel's where the kernel's BTF has it, so a project's own, shorter struct
    works too. An interface becomes its index. Members of a context that came out of a run and that
    describe its packet are made to fit the data. Raises `ValueTypeError`.
    """
    if context is None:
        return NO_CONTEXT
    label = f"context of {program.name!r}"
    if isinstance(context, (bytes, bytearray)):
        kernel = _kernel_type(program)
        fits = kernel is not None and kernel.size == len(context)
        own = program.context_type
        own_fits = own is not None and own.size == len(context)
        return Context(bytes(context), kernel if fits else own if own_fits else None)
    if program.type in RAW_TRACEPOINTS:
        return Context(_words(context, label))
    c_type = _type_for(program, context)
    if c_type is None or not c_type.size:
        raise ValueTypeError(f"{label}: its BTF has no struct for it, pass bytes")
    if isinstance(context, Record):
        context = _refit(program.type, context, size)
    elif program.type == "xdp" and isinstance(context, Mapping) and c_type is _kernel_type(program):
        context = {"data_end": size, **context}  # else no byte of the packet is where programs look
    members, namespace = _interfaces(context, program)
    return Context(codec(c_type).encode(members, label), c_type, namespace)


def flow_keys(raw: bytes) -> Any:
    """Return the keys that a flow dissector filled in; None where the kernel's BTF has no type."""
    try:
        return codec(kernel_struct(RUN_CONTEXTS[FLOW_DISSECTOR])).decode(raw, 0)
    except UnavailableError:
        return None


def _words(context: Any, label: str) -> bytes:
    words = context if isinstance(context, (tuple, list)) else ()
    if not words or not all(isinstance(word, int) for word in words):
        raise ValueTypeError(
            f"{label}: a raw tracepoint takes a sequence of its arguments as integers, "
            f"not {context!r}"
        )
    return struct.pack(f"={len(words)}Q", *(word % 2**64 for word in words))


def _type_for(program: LoadedProgram, context: Any) -> Type | None:
    """Return the kernel's struct, or the program's own for what only that can hold."""
    kernel, own = _kernel_type(program), program.context_type
    if kernel is None or not isinstance(context, (Mapping, Record)):
        return own if own is not None and own.size else kernel
    names = set(context._fields if isinstance(context, Record) else context)
    members = {member.name for member in kernel.flat_members()}
    if isinstance(own, Struct) and not names <= members:
        own_members = {member.name for member in own.flat_members()}
        return own if names <= own_members else kernel
    return kernel


def _kernel_type(program: LoadedProgram) -> Struct | None:
    kind = program.kind
    name = RUN_CONTEXTS.get(kind.type, kind.context)
    if not name or kind.test_run not in {"packet", "socket"}:
        return None
    try:
        return kernel_struct(name)
    except UnavailableError:
        return None


def _refit(program_type: str, context: Record, size: int) -> dict[str, Any]:
    """Return the members of a context that a run gave back, for a run with other data."""
    members = dict(zip(context._fields, context, strict=True))
    if program_type == "xdp" and "data_end" in members:
        members["data_end"] = size
    if members.get("wire_len", size) < size:
        members["wire_len"] = 0
    return members


def _interfaces(context: Any, program: LoadedProgram) -> tuple[Any, Any]:
    """Return a context with the indexes of its interfaces, and their network namespace."""
    if not isinstance(context, Mapping):
        return context, None
    interfaces = {n: v for n, v in context.items() if isinstance(v, InterfaceTarget)}
    if not interfaces:
        return context, None
    namespaces = {id(value.namespace): value.namespace for value in interfaces.values()}
    if len(namespaces) > 1:
        places = ", ".join(f"{n} in {v.namespace.name!r}" for n, v in interfaces.items())
        raise RunError(
            f"program {program.name!r} runs in one network namespace, and the interfaces of its "
            f"context are in several: {places}"
        )
    indexes = {name: value.ifindex for name, value in interfaces.items()}
    return {**context, **indexes}, next(iter(namespaces.values()))
