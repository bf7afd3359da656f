"""Why the kernel refused a test run: the members of the context that it does not take."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import RunError
from pytest_bpf.kernel.btf import Struct
from pytest_bpf.kernel.maps.batches import NOT_SUPPORTED
from pytest_bpf.kernel.programs import assembly
from pytest_bpf.kernel.programs.load import Variant, program
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.libbpf_options import RunOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.kernel.btf import Member
    from pytest_bpf.objects.programs.context import Context
    from pytest_bpf.objects.programs.loaded import LoadedProgram

TOGETHER = ("data", "data_meta", "data_end")
"""Members of ``struct xdp_md`` that the kernel checks against each other."""

WHY = {
    "wire_len": "from the length of the packet to 65536",
    "data_meta": "0",
    "data_end": "the length of the data",
    "data": "the length of the metadata in front of the packet, a multiple of 4",
    "ifindex": "the index of an interface of this namespace; pass an Interface",
    "ingress_ifindex": "the index of an interface of this namespace; pass an Interface",
    "rx_queue_index": "a queue of ingress_ifindex",
    "egress_ifindex": "0",
    "gso_segs": "at most 65535",
}
"""What the kernel takes for a member; any other member of ``struct __sk_buff`` must be 0."""


@dataclass(frozen=True)
class RunRequest:
    """A test run that the kernel refused; ``mode`` is the ``test_run`` of the program's kind."""

    program: LoadedProgram
    mode: str
    data: bytes
    context: Context
    cpu: int | None


def run_error(request: RunRequest, code: int) -> RunError:
    """Return the error for a test run that the kernel refused with ``code``.

    Runs in the thread and namespace of the refused run.
    """
    subject, size = request.program, len(request.data)
    what = f"program {subject.name!r} ({subject.type}) cannot be test-run with {size} bytes of data"
    return RunError(f"{what}: {libbpf.reason(code)}{_hint(request, code)}", code)


def _hint(request: RunRequest, code: int) -> str:
    kind, size = request.program.type, len(request.data)
    if code == errno.ENXIO and request.cpu is not None:
        return f"; CPU {request.cpu} is not online"
    if code in {NOT_SUPPORTED, errno.ENOTSUP}:
        return f"; the kernel has no test run for {kind} programs, attach it instead"
    if code == errno.EINVAL and request.mode == "packet" and size < 14:
        return f"; a {kind} program needs data of at least an Ethernet header, 14 bytes"
    if names := refused_members(request):
        rules = [f"{n} ({WHY.get(n, '0')})" for n in names]
        return f"; the kernel does not take these members of the context: {', '.join(rules)}"
    if code == errno.EINVAL and request.data and request.mode not in {"packet", ""}:
        return f"; a {kind} program is run with a context, it takes no data"
    if code == errno.EINVAL:
        return "; the data, the context or a flag does not fit this program type"
    return ""


def refused_members(request: RunRequest) -> list[str]:
    """Return the members of the context that the kernel refuses.

    A program that only returns is run in place of the test's own, with one member at a time.
    """
    c_type, raw = request.context.type, request.context.raw
    if not isinstance(c_type, Struct) or request.mode not in {"packet", "socket"}:
        return []
    members = [m for m in c_type.flat_members() if m.type.size and any(_part(m, raw))]
    joint = [m for m in members if request.program.type == "xdp" and m.name in TOGETHER]
    groups = [joint, *([m] for m in members if m not in joint)]
    variant = Variant(attach_type=request.program.expected_attach_type)
    try:
        with program(request.program.type, variant, assembly.RETURN_0) as fd:
            refused = [group for group in groups if group and _refuses(fd, request, group)]
    except OSError:
        return []
    return [member.name for group in refused for member in group]


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
