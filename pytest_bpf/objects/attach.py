"""Attaching a program, each kind to its kind of target."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from contextlib import suppress
from ctypes import c_int, c_size_t, c_uint32, c_uint64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, PlaceError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.mounts import with_tracefs
from pytest_bpf.kernel.perf_event import open_cpu_clock
from pytest_bpf.objects.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects.program import Program

XDP = 37
"""``BPF_XDP`` of ``enum bpf_attach_type``."""

XDP_MODES = {None: 0, "generic": 1 << 1, "native": 1 << 2}
"""``XDP_FLAGS_SKB_MODE`` and ``XDP_FLAGS_DRV_MODE`` of ``uapi/linux/if_link.h``."""

DIRECTIONS = {"ingress": 1, "egress": 2}
"""``BPF_TC_INGRESS`` and ``BPF_TC_EGRESS`` of ``bpf/libbpf.h``."""


@dataclass(frozen=True)
class Options:
    """How to attach, beyond the target; each kind of program uses its own of these."""

    direction: str | None = None
    mode: str | None = None
    binary: str | os.PathLike[str] | None = None
    function: str | None = None
    offset: int = 0
    provider: str | None = None
    pid: int = -1
    cpu: int = -1
    frequency: int = 1000


def attach(program: Program, target: Any, options: Options) -> list[Link]:
    """Attach a program to ``target``, or to what its section names when that is None.

    Raises `AttachError` with the program, its kind, the target and the kernel's reason.
    """
    how = _KINDS.get(program.type, _as_section_says)
    with libbpf.messages() as said:
        try:
            return how(program, target, options)
        except OSError as error:
            raise _refused(program, target, error, said) from None


# -- one function a kind -----------------------------------------------------------------------


def _as_section_says(program: Program, target: Any, _: Options) -> list[Link]:
    """Tracepoints, tp_btf, fentry, LSM and all else that libbpf attaches by the section."""
    if target is not None:
        raise AttachError(
            f"program {program.name!r} ({program.type}) takes no target: its section "
            f"{program.section!r} names it"
        )
    return [_link(program, program.section, with_tracefs, "bpf_program__attach")]


def _tracepoint(program: Program, target: Any, options: Options) -> list[Link]:
    if target is None:
        return _as_section_says(program, target, options)
    category, _, name = str(target).replace("/", ":").partition(":")
    arguments = (category.encode(), name.encode())
    return [_link(program, target, with_tracefs, "bpf_program__attach_tracepoint", *arguments)]


def _raw_tracepoint(program: Program, target: Any, options: Options) -> list[Link]:
    if target is None:
        return _as_section_says(program, target, options)
    name = str(target).encode()
    return [_link(program, target, _here, "bpf_program__attach_raw_tracepoint", name)]


def _kprobe(program: Program, target: Any, options: Options) -> list[Link]:
    """Attach kprobes, uprobes and USDT probes: one program type, told apart by the section."""
    kind = program.section.split("/")[0].rstrip("+")
    if kind == "usdt" and options.binary:
        return [_usdt(program, options)]
    if options.binary:
        return [_uprobe(program, options, on_return=kind.startswith("uret"))]
    if target is None:
        return _as_section_says(program, target, options)
    if kind.endswith("multi"):
        call = ("bpf_program__attach_kprobe_multi_opts", str(target).encode())
        return [_link(program, target, with_tracefs, *call, None)]
    probe = _KprobeOptions(retprobe=kind.startswith("kret"), offset=options.offset)
    probe.sz = ctypes.sizeof(probe)
    arguments = (str(target).encode(), ctypes.byref(probe))
    return [_link(program, target, with_tracefs, "bpf_program__attach_kprobe_opts", *arguments)]


def _uprobe(program: Program, options: Options, *, on_return: bool) -> Link:
    binary = os.fsencode(options.binary or "")
    function = options.function.encode() if options.function else None
    probe = _UprobeOptions(func_name=function, retprobe=on_return)
    probe.sz = ctypes.sizeof(probe)
    target = f"{os.fsdecode(binary)}:{options.function or hex(options.offset)}"
    arguments = (options.pid, binary, options.offset, ctypes.byref(probe))
    return _link(program, target, _here, "bpf_program__attach_uprobe_opts", *arguments)


def _usdt(program: Program, options: Options) -> Link:
    binary, provider = os.fsencode(options.binary or ""), (options.provider or "").encode()
    name = (options.function or "").encode()
    target = f"{os.fsdecode(binary)}:{options.provider}:{options.function}"
    arguments = (options.pid, binary, provider, name, None)
    return _link(program, target, _here, "bpf_program__attach_usdt", *arguments)


def _perf_event(program: Program, target: Any, options: Options) -> list[Link]:
    """Sample at ``frequency``: a process, a CPU, or every CPU."""
    if target is not None:
        fd = os.dup(target if isinstance(target, int) else target.fileno())
        return [_perf_link(program, fd, f"perf event {fd}")]
    if options.pid >= 0 or options.cpu >= 0:
        cpus = [options.cpu]
    else:
        cpus = sorted(os.sched_getaffinity(0))
    links: list[Link] = []
    for cpu in cpus:
        fd = open_cpu_clock(options.frequency, pid=options.pid, cpu=cpu)
        links.append(_perf_link(program, fd, f"{options.frequency} Hz on CPU {cpu}"))
    return links


def _perf_link(program: Program, fd: int, target: str) -> Link:
    try:
        return _link(program, target, _here, "bpf_program__attach_perf_event", fd)
    except OSError:
        os.close(fd)
        raise


def _xdp(program: Program, target: Any, options: Options) -> list[Link]:
    if options.mode not in XDP_MODES:
        raise AttachError(f"XDP mode {options.mode!r} is none of 'native', 'generic'")
    ifindex, run = _interface(program, target)
    how = _LinkOptions(flags=XDP_MODES[options.mode])
    how.sz = ctypes.sizeof(how)
    fd = run(libbpf.call, "bpf_link_create", program.fd, ifindex, XDP, ctypes.byref(how))
    return [Link(program.name, _named(target), lambda: os.close(fd), fd=fd)]


def _tc(program: Program, target: Any, options: Options) -> list[Link]:
    direction = options.direction or _direction_in(program.section)
    if direction not in DIRECTIONS:
        raise AttachError(
            f"program {program.name!r} (tc): its section {program.section!r} does not say where; "
            "pass direction='ingress' or direction='egress'"
        )
    ifindex, run = _interface(program, target)
    hook = _TcHook(ifindex=ifindex, attach_point=DIRECTIONS[direction])
    hook.sz = ctypes.sizeof(hook)
    made = run(_make_qdisc, hook)
    filter_ = _TcOptions(prog_fd=program.fd)
    filter_.sz = ctypes.sizeof(filter_)
    run(libbpf.call, "bpf_tc_attach", ctypes.byref(hook), ctypes.byref(filter_))

    def undo() -> None:
        with suppress(PlaceError):  # the namespace is gone, and the filter with it
            run(_remove_filter, hook, filter_, made)

    return [Link(program.name, f"{_named(target)} {direction}", undo)]


def _make_qdisc(hook: _TcHook) -> bool:
    """Make the interface's clsact qdisc; False when it was there."""
    try:
        libbpf.call("bpf_tc_hook_create", ctypes.byref(hook))
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        return False
    return True


def _remove_filter(hook: _TcHook, filter_: _TcOptions, made_qdisc: bool) -> None:
    by_handle = _TcOptions(handle=filter_.handle, priority=filter_.priority)
    by_handle.sz = ctypes.sizeof(by_handle)
    libbpf.function("bpf_tc_detach")(ctypes.byref(hook), ctypes.byref(by_handle))
    if made_qdisc:
        hook.attach_point = DIRECTIONS["ingress"] | DIRECTIONS["egress"]
        libbpf.function("bpf_tc_hook_destroy")(ctypes.byref(hook))


def _cgroup(program: Program, target: Any, _: Options) -> list[Link]:
    with _opened(program, target, "a cgroup") as fd:
        return [_link(program, _named(target), _here, "bpf_program__attach_cgroup", fd)]


def _network_namespace(program: Program, target: Any, _: Options) -> list[Link]:
    with _opened(program, target, "a network namespace") as fd:
        return [_link(program, _named(target), _here, "bpf_program__attach_netns", fd)]


def _socket_map(program: Program, target: Any, _: Options) -> list[Link]:
    kind = program.expected_attach_type
    fd = getattr(target, "fd", None)
    if fd is None:
        raise AttachError(f"program {program.name!r} ({program.type}) attaches to a sockmap")
    libbpf.call("bpf_prog_attach", program.fd, fd, kind, 0)
    prog_fd, map_fd = os.dup(program.fd), os.dup(fd)

    def undo() -> None:
        libbpf.function("bpf_prog_detach2")(prog_fd, map_fd, kind)
        os.close(prog_fd)
        os.close(map_fd)

    return [Link(program.name, _named(target), undo)]


def _socket(program: Program, target: Any, _: Options) -> list[Link]:
    """Attach socket filters and reuseport programs, by a socket option."""
    if not isinstance(target, socket.socket):
        raise AttachError(f"program {program.name!r} ({program.type}) attaches to a socket")
    option, off = (50, 27) if program.type == "socket_filter" else (52, 68)
    target.setsockopt(socket.SOL_SOCKET, option, program.fd)

    def undo() -> None:
        if target.fileno() >= 0:
            target.setsockopt(socket.SOL_SOCKET, off, 0)

    return [Link(program.name, "socket", undo)]


def _tracing(program: Program, target: Any, options: Options) -> list[Link]:
    """Attach fentry, fexit, tp_btf by section; iterators over a map to that map."""
    if target is None or not program.section.startswith("iter"):
        return _as_section_says(program, target, options)
    over = _IterOptions(link_info=ctypes.pointer(c_uint32(target.fd)), link_info_len=4)
    over.sz = ctypes.sizeof(over)
    call = ("bpf_program__attach_iter", ctypes.byref(over))
    return [_link(program, _named(target), _here, *call)]


_KINDS: dict[str, Callable[[Program, Any, Options], list[Link]]] = {
    "tracepoint": _tracepoint,
    "raw_tracepoint": _raw_tracepoint,
    "raw_tracepoint_writable": _raw_tracepoint,
    "kprobe": _kprobe,
    "perf_event": _perf_event,
    "xdp": _xdp,
    "sched_cls": _tc,
    "sched_act": _tc,
    **dict.fromkeys(("cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "sock_ops"), _cgroup),
    **dict.fromkeys(("cgroup_device", "cgroup_sysctl", "cgroup_sockopt"), _cgroup),
    **dict.fromkeys(("sk_lookup", "flow_dissector"), _network_namespace),
    **dict.fromkeys(("sk_skb", "sk_msg"), _socket_map),
    **dict.fromkeys(("socket_filter", "sk_reuseport"), _socket),
    "tracing": _tracing,
}

NEEDS_TARGET = frozenset(_KINDS) - {
    *("tracepoint", "raw_tracepoint", "raw_tracepoint_writable", "kprobe", "perf_event", "tracing")
}
"""Program types whose section never says what to attach to."""


# -- what they share ---------------------------------------------------------------------------


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _link(
    program: Program, target: Any, run: Callable[..., Any], name: str, *arguments: Any
) -> Link:
    """Make a libbpf link by the function ``name``, called through ``run``."""
    pointer = run(libbpf.call, name, program.pointer, *arguments)
    fd = libbpf.function("bpf_link__fd")(pointer)
    destroy = libbpf.function("bpf_link__destroy")
    return Link(program.name, str(target), lambda: destroy(pointer), fd=fd)


def _interface(program: Program, target: Any) -> tuple[int, Callable[..., Any]]:
    """Return an interface's index, and how to run a function in its network namespace."""
    if hasattr(target, "ifindex"):
        return target.ifindex, target.namespace.run
    if isinstance(target, int):
        return target, _here
    if isinstance(target, str):
        try:
            return socket.if_nametoindex(target), _here
        except OSError:
            raise AttachError(
                f"program {program.name!r}: there is no interface {target!r} in this network "
                "namespace; pass a namespace's .iface"
            ) from None
    raise AttachError(
        f"program {program.name!r} ({program.type}) attaches to an interface, "
        f"not to {_named(target)}: program.attach(namespace.iface)"
    )


class _opened:  # noqa: N801 (used as a context manager)
    """A descriptor of a cgroup or namespace, given as an object, a number or a path."""

    def __init__(self, program: Program, target: Any, what: str) -> None:
        self._mine = -1
        if isinstance(target, (str, Path)):
            try:
                self._mine = self._fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise AttachError(
                    f"program {program.name!r}: {target} is not {what}: {error.strerror}"
                ) from None
        elif isinstance(target, int):
            self._fd = target
        elif hasattr(target, "fileno"):
            self._fd = target.fileno()
        else:
            raise AttachError(
                f"program {program.name!r} ({program.type}) attaches to {what}, "
                f"not to {_named(target)}"
            )

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._mine >= 0:
            os.close(self._mine)


def _direction_in(section: str) -> str | None:
    return next((name for name in DIRECTIONS if name in section), None)


def _named(target: Any) -> str:
    return str(getattr(target, "name", None) or getattr(target, "path", None) or target)


def _refused(program: Program, target: Any, error: OSError, said: list[str]) -> AttachError:
    where = f" to {_named(target)}" if target is not None else ""
    detail = f" ({said[-1]})" if said else ""
    hint = {
        errno.ENOENT: "; that hook does not exist on this kernel",
        errno.EBUSY: "; something is attached there already",
        errno.EEXIST: "; something is attached there already",
        errno.ENOTSUP: "; attach it to a target: program.attach(target)",
    }.get(error.errno or 0, "")
    return AttachError(
        f"program {program.name!r} ({program.section}) cannot be attached{where}: "
        f"{libbpf.reason(error.errno or 0)}{hint}{detail}",
        error.errno or 0,
    )


class _KprobeOptions(ctypes.Structure):
    """``struct bpf_kprobe_opts``."""

    _fields_ = (
        ("sz", c_size_t),
        ("bpf_cookie", c_uint64),
        ("offset", c_size_t),
        ("retprobe", ctypes.c_bool),
    )


class _UprobeOptions(ctypes.Structure):
    """``struct bpf_uprobe_opts``."""

    _fields_ = (
        ("sz", c_size_t),
        ("ref_ctr_offset", c_size_t),
        ("bpf_cookie", c_uint64),
        ("retprobe", ctypes.c_bool),
        ("func_name", ctypes.c_char_p),
    )


class _LinkOptions(ctypes.Structure):
    """``struct bpf_link_create_opts``, of which only the flags are used."""

    _fields_ = (("sz", c_size_t), ("flags", c_uint32), ("rest", c_uint64 * 7))


class _IterOptions(ctypes.Structure):
    """``struct bpf_iter_attach_opts``; the link info is a map's descriptor."""

    _fields_ = (
        ("sz", c_size_t),
        ("link_info", ctypes.POINTER(c_uint32)),
        ("link_info_len", c_uint32),
    )


class _TcHook(ctypes.Structure):
    """``struct bpf_tc_hook``."""

    _fields_ = (
        ("sz", c_size_t),
        ("ifindex", c_int),
        ("attach_point", c_int),
        ("parent", c_uint32),
    )


class _TcOptions(ctypes.Structure):
    """``struct bpf_tc_opts``."""

    _fields_ = (
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    )
