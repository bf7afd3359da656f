"""Why the kernel refused a test run: the members of the context that it does not take."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import RunError, with_article
from pytest_bpf.kernel.btf import Struct
from pytest_bpf.kernel.maps.batches import NOT_SUPPORTED
from pytest_bpf.kernel.programs import assembly
from pytest_bpf.kernel.programs.load import Variant, program
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.libbpf_options import RunOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_bpf.kernel.btf import Member
    from pytest_bpf.objects.programs.context import Context
    from pytest_bpf.objects.programs.loaded import LoadedProgram

BEFORE: dict[str, tuple[tuple[str, ...], ...]] = {
    "xdp": (("data", "data_meta", "data_end"), ("ingress_ifindex",)),
    "sk_lookup": (("family",),),
    "netfilter": (("pf",),),
}
"""By type of program, the members that the kernel checks first, those of one tuple together."""

WHY = {
    "wire_len": "from the length of the packet to 65536",
    "data_meta": "must be 0",
    "data_end": "the length of the data",
    "data": "the length of the metadata in front of the packet, a multiple of 4",
    "ifindex": "the index of an interface of this namespace; pass an Interface",
    "ingress_ifindex": "the index of an interface of this namespace; pass an Interface",
    "rx_queue_index": "a queue of ingress_ifindex",
    "egress_ifindex": "must be 0",
    "gso_segs": "at most 65535",
    "pf": "that of the packet: 2 for IPv4, 10 for IPv6",
    "hook": "a hook of pf, which must be there too",
}
"""What the kernel takes for a member; any other member of ``struct __sk_buff`` must be 0."""

FAMILY = (
    "; its context says the address family: "
    "{'family': socket.AF_INET, ...} or {'family': socket.AF_INET6, ...}"
)

PAGE, ARGUMENTS, BATCH = 4096, 12, 256
"""At most: a packet in one piece, arguments of a raw tracepoint, live frames in a batch."""

ETHERNET, FRAGMENTS = 14, 17
"""Bytes of its header; pages of a packet behind the first one (``MAX_SKB_FRAGS``)."""


@dataclass(frozen=True)
class RunRequest:
    """A test run that the kernel refused; ``mode`` is the ``test_run`` of the program's kind.

    ``options`` are the arguments of `Program.test_run` that are flags of the kernel.
    """

    program: LoadedProgram
    mode: str
    data: bytes
    context: Context
    options: Mapping[str, Any] = field(default_factory=dict)


def run_error(request: RunRequest, code: int) -> RunError:
    """Return the error for a test run that the kernel refused with ``code``.

    Runs in the thread and namespace of the refused run.
    """
    subject, size = request.program, len(request.data)
    what = f"program {subject.name!r} ({subject.type}) cannot be test-run with {size} bytes of data"
    return RunError(f"{what}: {libbpf.reason(code)}{_hint(request, code)}", code)


def _hint(request: RunRequest, code: int) -> str:
    kind, size = request.program.type, len(request.data)
    if code == errno.ENXIO and request.options.get("cpu") is not None:
        return f"; CPU {request.options['cpu']} is not online"
    if not request.mode or code in {NOT_SUPPORTED, errno.ENOTSUP}:
        name = request.program.kind.name if kind in {"tracing", "xdp"} else kind
        return f"; the kernel has no test run for {name} programs, attach it instead"
    if wrong := _option_hint(request, code):
        return wrong
    if code == errno.EINVAL and request.mode == "packet" and size < ETHERNET:
        return f"; {with_article(kind)} program needs data of at least an Ethernet header, 14 bytes"
    if code == errno.ENOMEM and kind == "xdp" and size > PAGE * FRAGMENTS:
        return f"; the kernel holds a packet in {FRAGMENTS} pages and the one before them, at most"
    if code == errno.EAFNOSUPPORT:
        return FAMILY
    if names := refused_members(request):
        why = {} if request.mode == "socket" else WHY
        rules = [f"{n} ({why.get(n, 'must be 0')})" for n in names]
        return f"; the kernel does not take these members of the context: {', '.join(rules)}"
    if code == errno.EINVAL and request.data and request.mode not in {"packet", ""}:
        return f"; {with_article(kind)} program is run with a context, it takes no data"
    if code == errno.EINVAL:
        return _size_hint(request)
    return ""


def _option_hint(request: RunRequest, code: int) -> str:
    """Return which of the options the kernel does not take for such a program."""
    kind, options = request.program.type, request.options
    if options.get("batch_size", 0) > BATCH and code == errno.E2BIG:
        return f"; batch_size is at most {BATCH}"
    if code != errno.EINVAL:
        return ""
    if options.get("cpu") is not None and request.mode != "arguments":
        return "; cpu= is for raw tracepoints: pin the thread by os.sched_setaffinity instead"
    if options.get("live") and kind != "xdp":
        return "; live=True is for xdp programs"
    if options.get("batch_size") and not options.get("live"):
        return "; batch_size= is for live=True"
    return ""


def _size_hint(request: RunRequest) -> str:
    """Return what may be wrong with the sizes of data and context."""
    kind, size, given = request.program.type, len(request.data), len(request.context.raw)
    if request.mode == "socket" and not given:
        return FAMILY
    if request.mode == "arguments":
        how_many = (
            f"it got {given // 8}, and reads more"
            if given // 8 <= ARGUMENTS
            else f"not {given // 8}"
        )
        return (
            f"; a raw tracepoint takes a context of its arguments, at most {ARGUMENTS}: {how_many}"
        )
    if request.mode == "context":
        return f"; the program reads more of its context than the {given} bytes that it got"
    if request.mode == "packet" and size == ETHERNET:
        return f"; {with_article(kind)} program needs data of more than an Ethernet header"
    if request.mode == "packet" and size > PAGE - 512:
        return (
            f"; the packet of a {kind} program must fit into a page of {PAGE} bytes, less some 400"
        )
    return "; the data, the context or a flag does not fit this program type"


def refused_members(request: RunRequest) -> list[str]:
    """Return the members of the context that the kernel refuses.

    A program that only returns is run in place of the test's own, with one member at a time.
    """
    c_type, raw = request.context.type, request.context.raw
    if not isinstance(c_type, Struct) or request.mode not in {"packet", "socket"}:
        return []
    members = [m for m in c_type.flat_members() if m.type.size and any(_part(m, raw))]
    before = BEFORE.get(request.program.type, ())
    variant = Variant(attach_type=request.program.expected_attach_type)
    base: list[Member] = []
    try:
        with program(request.program.type, variant, assembly.RETURN_0) as fd:
            for names in before:
                group = [member for member in members if member.name in names]
                if group and _refuses(fd, request, [*base, *group]):
                    return [member.name for member in group]
                base += group
            others = [member for member in members if member not in base]
            return [m.name for m in others if _refuses(fd, request, [*base, m])]
    except OSError:
        return []


def _part(member: Member, raw: bytes) -> bytes:
    first = member.bit_offset // 8
    return raw[first : first + (member.type.size or 1)]


def _refuses(fd: int, request: RunRequest, members: Sequence[Member]) -> bool:
    alone = bytearray(len(request.context.raw))
    for member in members:
        first, part = member.bit_offset // 8, _part(member, request.context.raw)
        alone[first : first + len(part)] = part
    options = RunOptions(
        data_in=request.data or None,
        data_size_in=len(request.data),
        ctx_in=bytes(alone),
        ctx_size_in=len(alone),
        repeat=int(request.mode == "packet"),
    )
    return bool(libbpf.function("bpf_prog_test_run_opts")(fd, ctypes.byref(options)) < 0)
