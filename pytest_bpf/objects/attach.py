"""Attaching a program, each kind to its kind of target."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from ctypes import c_uint32
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, BpfError, UnavailableError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.libbpf_options import IterOptions, KprobeOptions, LinkOptions, UprobeOptions
from pytest_bpf.kernel.mounts import with_tracefs
from pytest_bpf.kernel.perf_event import online_cpus, open_cpu_clock
from pytest_bpf.objects import attach_by_fd, tc
from pytest_bpf.objects.lacking import lacking
from pytest_bpf.objects.link import Link
from pytest_bpf.objects.targets import Options, here, interface, named, opened, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects.loaded import LoadedProgram

XDP = 37
"""``BPF_XDP`` of ``enum bpf_attach_type``."""

XDP_MODES = {None: 0, "generic": 1 << 1, "native": 1 << 2}
"""``XDP_FLAGS_SKB_MODE`` and ``XDP_FLAGS_DRV_MODE`` of ``uapi/linux/if_link.h``."""


def attach(program: LoadedProgram, target: Any, options: Options) -> Link:
    """Attach a program to ``target``, or to what its section names when that is None.

    Raises `AttachError` with the program, its kind, the target and the kernel's reason, and
    `UnavailableError` when this kernel attaches no program of that kind.
    """
    takes = _OPTIONS.get(program.type, ())
    for option in fields(options):
        if option.name not in takes and getattr(options, option.name) != option.default:
            known = ", ".join(f"{name}=" for name in takes) or "no options"
            raise AttachError(
                f"program {program.name!r} ({program.type}) takes {known}, not {option.name}="
            )
    how = _KINDS.get(program.type, _as_section_says)
    try:
        return how(program, target, options)
    except OSError as error:
        raise _refused(program, target, error) from None


def _refused(program: LoadedProgram, target: Any, error: OSError) -> BpfError:
    code = error.errno or 0
    missing = lacking(program.section, program.type)
    if missing:
        return UnavailableError(
            f"program {program.name!r} ({program.section}) cannot be attached here: {missing}"
        )
    where = f" to {named(target)}" if target is not None else ""
    said = getattr(error, "said", "")
    return AttachError(
        f"program {program.name!r} ({program.section}) cannot be attached{where}: "
        f"{libbpf.reason(code)}{_hint(program, target, code)}{f' ({said})' if said else ''}",
        code,
    )


def _hint(program: LoadedProgram, target: Any, code: int) -> str:
    if code == errno.ENOENT:
        return "; that hook does not exist on this kernel"
    if code == errno.EILSEQ:
        return "; no instruction begins at that offset"
    if code in {errno.EBUSY, errno.EEXIST}:
        return "; something is attached there already"
    if code == errno.ENOTSUP and program.type == "xdp":
        return "; that interface has no native XDP, pass mode='generic'"
    if code == errno.ENOTSUP and target is None:
        takes = [f"{name}=" for name in _OPTIONS.get(program.type, ())]
        way = f"pass {', '.join(takes)}" if takes else "pass its target"
        return f"; its section does not say where, {way}: program.attach(...)"
    return ""


# -- one function a kind -----------------------------------------------------------------------


def _as_section_says(program: LoadedProgram, target: Any, _: Options) -> Link:
    """Tracepoints, tp_btf, fentry, LSM and all else that libbpf attaches by the section."""
    if target is not None:
        raise AttachError(
            f"program {program.name!r} ({program.type}) takes no target: its section "
            f"{program.section!r} names it"
        )
    return _link(program, program.section, with_tracefs, "bpf_program__attach")


def _tracepoint(program: LoadedProgram, target: Any, options: Options) -> Link:
    if target is None:
        return _as_section_says(program, target, options)
    category, _, name = str(target).replace("/", ":").partition(":")
    arguments = (category.encode(), name.encode())
    return _link(program, target, with_tracefs, "bpf_program__attach_tracepoint", *arguments)


def _raw_tracepoint(program: LoadedProgram, target: Any, options: Options) -> Link:
    if target is None:
        return _as_section_says(program, target, options)
    name = str(target).encode()
    return _link(program, target, here, "bpf_program__attach_raw_tracepoint", name)


def _kprobe(program: LoadedProgram, target: Any, options: Options) -> Link:
    """Attach kprobes, uprobes and USDT probes: one program type, told apart by the section."""
    kind = program.section.split("/")[0].rstrip("+")
    if kind == "usdt" and options.binary:
        return _usdt(program, options)
    if options.binary:
        return _uprobe(program, options, on_return=kind.startswith("uret"))
    if target is None:
        return _as_section_says(program, target, options)
    if kind.endswith("multi"):
        call = ("bpf_program__attach_kprobe_multi_opts", str(target).encode())
        return _link(program, target, with_tracefs, *call, None)
    probe = KprobeOptions(retprobe=kind.startswith("kret"), offset=options.offset)
    arguments = (str(target).encode(), ctypes.byref(probe))
    return _link(program, target, with_tracefs, "bpf_program__attach_kprobe_opts", *arguments)


def _uprobe(program: LoadedProgram, options: Options, *, on_return: bool) -> Link:
    binary = os.fsencode(options.binary or "")
    function = options.function.encode() if options.function else None
    probe = UprobeOptions(func_name=function, retprobe=on_return)
    target = f"{os.fsdecode(binary)}:{options.function or hex(options.offset)}"
    arguments = (options.pid, binary, options.offset, ctypes.byref(probe))
    return _link(program, target, here, "bpf_program__attach_uprobe_opts", *arguments)


def _usdt(program: LoadedProgram, options: Options) -> Link:
    binary, provider = os.fsencode(options.binary or ""), (options.provider or "").encode()
    name = (options.function or "").encode()
    target = f"{os.fsdecode(binary)}:{options.provider}:{options.function}"
    arguments = (options.pid, binary, provider, name, None)
    return _link(program, target, here, "bpf_program__attach_usdt", *arguments)


def _perf_event(program: LoadedProgram, target: Any, options: Options) -> Link:
    """Sample at ``frequency``: a process, a CPU, or every CPU."""
    if target is not None:
        fd = os.dup(target if isinstance(target, int) else target.fileno())
        return _perf_link(program, fd, f"perf event {fd}")
    everywhere = options.pid < 0 and options.cpu < 0
    links: list[Link] = []
    try:
        for cpu in online_cpus() if everywhere else [options.cpu]:
            fd = open_cpu_clock(options.frequency, pid=options.pid, cpu=cpu)
            links.append(_perf_link(program, fd, f"{options.frequency} Hz on CPU {cpu}"))
    except BaseException:
        for link in links:
            link.detach()
        raise
    if not everywhere:
        return links[0]

    def undo() -> None:
        for link in links:
            link.detach()

    return Link(program.name, f"{options.frequency} Hz on all CPUs", undo, fd=links[0].fd)


def _perf_link(program: LoadedProgram, fd: int, target: str) -> Link:
    try:
        return _link(program, target, here, "bpf_program__attach_perf_event", fd)
    except OSError:
        os.close(fd)
        raise


def _xdp(program: LoadedProgram, target: Any, options: Options) -> Link:
    if options.mode not in XDP_MODES:
        raise AttachError(f"XDP mode {options.mode!r} is none of 'native', 'generic'")
    ifindex, run = interface(program, target)
    how = LinkOptions(flags=XDP_MODES[options.mode])
    fd = run(told, "bpf_link_create", program.fd, ifindex, XDP, ctypes.byref(how))
    return Link(program.name, named(target), lambda: os.close(fd), fd=fd)


def _cgroup(program: LoadedProgram, target: Any, _: Options) -> Link:
    with opened(program, target, "a cgroup") as fd:
        return _link(program, named(target), here, "bpf_program__attach_cgroup", fd)


def _network_namespace(program: LoadedProgram, target: Any, _: Options) -> Link:
    with opened(program, target, "a network namespace") as fd:
        return _link(program, named(target), here, "bpf_program__attach_netns", fd)


def _socket_map(program: LoadedProgram, target: Any, _: Options) -> Link:
    kind = program.expected_attach_type
    fd = getattr(target, "fd", None)
    if fd is None:
        raise AttachError(f"program {program.name!r} ({program.type}) attaches to a sockmap")
    told("bpf_prog_attach", program.fd, fd, kind, 0)
    prog_fd, map_fd = os.dup(program.fd), os.dup(fd)

    def undo() -> None:
        libbpf.function("bpf_prog_detach2")(prog_fd, map_fd, kind)
        os.close(prog_fd)
        os.close(map_fd)

    return Link(program.name, named(target), undo)


def _socket(program: LoadedProgram, target: Any, _: Options) -> Link:
    """Attach socket filters and reuseport programs, by a socket option."""
    if not isinstance(target, socket.socket):
        raise AttachError(f"program {program.name!r} ({program.type}) attaches to a socket")
    option, off = (50, 27) if program.type == "socket_filter" else (52, 68)
    target.setsockopt(socket.SOL_SOCKET, option, program.fd)

    def undo() -> None:
        if target.fileno() >= 0:
            target.setsockopt(socket.SOL_SOCKET, off, 0)

    return Link(program.name, "socket", undo)


def _tracing(program: LoadedProgram, target: Any, options: Options) -> Link:
    """Attach fentry, fexit, tp_btf by section; iterators over a map to that map."""
    if target is None or not program.section.startswith("iter"):
        return _as_section_says(program, target, options)
    if not hasattr(target, "fd"):
        raise AttachError(
            f"program {program.name!r}: an iterator over a map takes a map, not {named(target)}"
        )
    over = IterOptions(link_info=ctypes.pointer(c_uint32(target.fd)), link_info_len=4)
    call = ("bpf_program__attach_iter", ctypes.byref(over))
    return _link(program, named(target), here, *call)


_KINDS: dict[str, Callable[[LoadedProgram, Any, Options], Link]] = {
    "tracepoint": _tracepoint,
    "raw_tracepoint": _raw_tracepoint,
    "raw_tracepoint_writable": _raw_tracepoint,
    "kprobe": _kprobe,
    "perf_event": _perf_event,
    "xdp": _xdp,
    "sched_cls": tc.attach,
    "sched_act": tc.attach,
    **dict.fromkeys(("cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "sock_ops"), _cgroup),
    **dict.fromkeys(("cgroup_device", "cgroup_sysctl", "cgroup_sockopt"), _cgroup),
    **dict.fromkeys(("sk_lookup", "flow_dissector"), _network_namespace),
    **dict.fromkeys(("sk_skb", "sk_msg"), _socket_map),
    **dict.fromkeys(("socket_filter", "sk_reuseport"), _socket),
    "tracing": _tracing,
}

_OPTIONS: dict[str, tuple[str, ...]] = {
    "kprobe": ("binary", "function", "offset", "provider", "pid"),
    "perf_event": ("pid", "cpu", "frequency"),
    "xdp": ("mode",),
    **dict.fromkeys(("sched_cls", "sched_act"), ("direction",)),
}

NEEDS_TARGET = (frozenset(_KINDS) | {"struct_ops", "syscall", "unspec"}) - {
    *("tracepoint", "raw_tracepoint", "raw_tracepoint_writable", "kprobe", "tracing")
}
"""Program types whose section never says what to attach to."""


# -- what they share ---------------------------------------------------------------------------


def _link(
    program: LoadedProgram, target: Any, run: Callable[..., Any], name: str, *arguments: Any
) -> Link:
    """Make a libbpf link by the function ``name``, called through ``run``."""
    if not program.pointer:
        fd, undo = run(attach_by_fd.link, program, name, *arguments)
        return Link(program.name, str(target), undo, fd=fd)
    pointer = run(told, name, program.pointer, *arguments)
    fd = libbpf.function("bpf_link__fd")(pointer)
    destroy = libbpf.function("bpf_link__destroy")
    return Link(program.name, str(target), lambda: destroy(pointer), fd=fd)
