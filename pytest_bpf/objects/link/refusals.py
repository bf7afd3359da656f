"""Why a program could not be attached, as one sentence."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, BpfError, UnavailableError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kinds.programs import parse_section
from pytest_bpf.objects.link.targets import gone_interface, target_name
from pytest_bpf.objects.refusals import missing_feature

if TYPE_CHECKING:
    from pytest_bpf.kinds.program_kind import ProgramKind
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

HINTS = {
    ("netkit", errno.ENXIO): "that interface is no netkit, make one by "
    "bpf_places.pair(kind='netkit')",
    ("netkit", errno.EACCES): "that is the peer of a netkit: both kinds attach to the primary, "
    "left.iface",
    ("cgroup", errno.EPERM): "a program of this cgroup was attached with another mode=, or one of "
    "a cgroup above allows no others",
    ("uprobe", errno.EINVAL): "offset= is a place in the file's code, in bytes from its beginning",
    ("perf_event", errno.EINVAL): "frequency= is at most the sysctl "
    "kernel.perf_event_max_sample_rate, and cpu= the number of a CPU that is online",
    ("socket", errno.EINVAL): "a program of sk_reuseport takes a socket of UDP or TCP with "
    "SO_REUSEPORT set, a filter one that is not locked",
    ("socket", errno.EBADF): "that socket is closed",
    ("netns", errno.E2BIG): "a network namespace has one flow dissector, and 64 programs of other "
    "kinds",
}
"""What the kernel's answer means, by the way of attaching."""


def refusal(
    program: Attachable, kind: ProgramKind, target: Any, options: Options, error: OSError
) -> BpfError:
    """Return what to raise for the kernel's error: what, where, why, and what to do."""
    code = error.errno or 0
    missing = missing_feature(program.section, program.type) or _missing_module(kind, options, code)
    if missing:
        return UnavailableError(
            f"program {program.name!r} ({program.section}) cannot be attached here: {missing}"
        )
    where = f" to {target_name(target)}" if target is not None else ""
    detail = getattr(error, "detail", "")
    gone = gone_interface(target) if code in {errno.ENODEV, errno.EINVAL, errno.ENOENT} else ""
    hint = f"; {gone}" if gone else _hint(kind, options, code)
    return AttachError(
        f"program {program.name!r} ({program.section}) cannot be attached{where}: "
        f"{libbpf.reason(code)}{hint}{f' ({detail})' if detail else ''}",
        code,
    )


def _missing_module(kind: ProgramKind, options: Options, code: int) -> str:
    """Name the module of the kernel that is not loaded, if that is why."""
    if code != errno.ENOENT or kind.way != "netfilter" or not options.defrag:
        return ""
    name = f"nf_defrag_{options.family}"
    return f"defrag=True needs the kernel's module {name}, which is not loaded; modprobe {name}"


def _hint(kind: ProgramKind, options: Options, code: int) -> str:
    anchor = options.before is not None or options.after is not None
    if code == errno.ENOENT and anchor:
        return "; the program or link of before= or after= is not attached there"
    if code == errno.EINVAL and anchor:
        return "; before= and after= take a program of the same kind and hook, or its link"
    if code == errno.ESTALE and options.revision:
        return f"; the programs there changed since revision {options.revision}, query them again"
    if code == errno.ENOENT and options.replace is not None:
        return "; the program of replace= is not attached there"
    if code in {errno.ENOENT, errno.ESRCH} and kind.way == "kprobe_multi":
        return "; the kernel has no such function, or none that can be probed"
    if code == errno.ESRCH and options.pid >= 0:
        return f"; there is no process {options.pid}"
    if code == errno.ENOENT and not kind.target:
        return "; that hook does not exist on this kernel"
    if code == errno.EILSEQ:
        return "; no instruction begins at that offset"
    if code in {errno.EBUSY, errno.EEXIST}:
        return _taken(kind, options)
    if code == errno.ERANGE and kind.way == "netfilter":
        least, more = (-399, " with defrag=True") if options.defrag else (-(2**31) + 1, "")
        return f"; priority={options.priority} is out of range, {least} to {2**31 - 2}{more}"
    if code == errno.ENOTSUP and kind.name == "xdp":
        return "; that interface has no native XDP, pass mode='generic'"
    if code == errno.EINVAL and options.replace is not None and kind.name == "xdp":
        return "; replace= takes the XDP program that is attached there"
    hint = HINTS.get((kind.way, code))
    return f"; {hint}" if hint else ""


def _taken(kind: ProgramKind, options: Options) -> str:
    """Say what is in the way, and what to do."""
    if kind.way == "netfilter":
        return f"; a program with priority={options.priority or 0} is at that hook, take another"
    if kind.name == "xdp" and options.replace is not None:
        return "; the program of replace= is not the one attached there"
    if kind.name == "xdp":
        return "; a program is attached there, and XDP runs one: link.update() or replace= swaps it"
    if options.handle:
        return (
            f"; the handle {options.handle} of priority={options.priority or 0} is taken, leave "
            "handle= out or take another"
        )
    if kind.way in {"tc", "tcx", "netkit", "tracepoint"}:
        return "; this program is attached there already"
    return "; something is attached there already"


def no_target(program: Attachable, target: Any) -> None:
    """Raise `AttachError` for a target of a program that knows its own."""
    if target is not None:
        raise AttachError(
            f"program {program.name!r} ({program.type}) takes no target: its section "
            f"{program.section!r} names it"
        )


def target_or_section(program: Attachable, target: Any, noun: str) -> str:
    """Return a target as text, or else the one in the section; raise `AttachError` without any."""
    parsed = parse_section(program.section)
    text = str(target) if target is not None else parsed.target if parsed else ""
    if not text:
        raise AttachError(
            f"program {program.name!r} ({program.section}): its section does not say where, pass "
            f"{noun}: program.attach(...)"
        )
    return text
