"""Probes of attaching: each attaches ``r0 = 0; exit`` for real, where it can disturb nobody.

Networking programs go to a network namespace of their own; uprobes into a file that no process
maps. cgroup programs are loaded, and the root cgroup is asked whether it takes their kind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from ctypes import c_char_p, c_uint32, c_uint64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.features.variants import TRACEPOINT, struct_ops, tracing
from pytest_bpf.kernel.programs.load import Variant, closing, program
from pytest_bpf.kernel.sys import libbpf, perf_event
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.kernel.sys.libbpf_options import MultiOptions, TcHook, TcOptions
from pytest_bpf.kernel.sys.libc import syscall
from pytest_bpf.kernel.sys.network import LO, in_private_network
from pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs
from pytest_bpf.kinds.attach_types import AttachType

if TYPE_CHECKING:
    from collections.abc import Callable

KERNEL_FUNCTION = "vfs_statfs"
"""A function every kernel has and rarely runs."""

XDP_FLAGS_SKB_MODE = 1 << 1
BPF_TC_INGRESS = 1 << 0
LSM_ID_BPF = 109
NFPROTO_IPV4 = 2
SYS_LSM_LIST_MODULES = 461


def _raw_tracepoint() -> None:
    with program("raw_tracepoint") as fd:
        os.close(libbpf.call("bpf_raw_tracepoint_open", TRACEPOINT.encode(), fd))


def _trampoline(kind: str) -> None:
    with program("lsm" if kind == "lsm" else "tracing", tracing(kind)) as fd:
        os.close(libbpf.call("bpf_raw_tracepoint_open", None, fd))


def _lsm() -> None:
    _trampoline("lsm")
    modules, size = (c_uint64 * 64)(), c_uint32(64 * 8)
    try:
        count = syscall(SYS_LSM_LIST_MODULES, "lsm_list_modules", modules, ctypes.byref(size), 0)
    except OSError:  # before 6.8 there is nobody to ask
        return
    if LSM_ID_BPF not in modules[:count]:
        raise UnavailableError("the BPF LSM is not among the active ones (kernel parameter lsm=)")


def _iterator() -> None:
    with program("tracing", tracing("iter")) as fd:
        os.close(libbpf.call("bpf_link_create", fd, 0, AttachType.TRACE_ITER, None))


def _tracepoint() -> None:
    with program("tracepoint") as fd:

        def attach() -> None:
            event = Path(tracefs() or "", "events/sched", TRACEPOINT, "id")
            perf_event.attach_once(perf_event.TRACEPOINT, int(event.read_text()), fd)

        with_tracefs(attach)


def _kprobe(*, on_return: bool) -> None:
    with program("kprobe") as fd:
        perf_event.attach_dynamic("kprobe", KERNEL_FUNCTION, fd, on_return=on_return)


@cache
def _uprobe(*, on_return: bool) -> None:
    with program("kprobe") as fd, closing(os.memfd_create("pytest-bpf-probe")) as file:
        os.ftruncate(file, os.sysconf("SC_PAGE_SIZE"))
        perf_event.attach_dynamic("uprobe", f"/proc/self/fd/{file}", fd, on_return=on_return)


def _kprobe_multi() -> None:
    kind = AttachType.TRACE_KPROBE_MULTI
    with program("kprobe", Variant(kind)) as fd:
        names = (c_char_p * 1)(KERNEL_FUNCTION.encode())
        options = MultiOptions(cnt=1, syms=ctypes.addressof(names))
        os.close(libbpf.call("bpf_link_create", fd, 0, kind, ctypes.byref(options)))


def _perf_event() -> None:
    with program("perf_event") as fd:
        perf_event.attach_once(perf_event.SOFTWARE, perf_event.CPU_CLOCK, fd, period=10**9)


def _xdp() -> None:
    with program("xdp") as fd:
        mode = XDP_FLAGS_SKB_MODE
        in_private_network(lambda: libbpf.call("bpf_xdp_attach", LO, fd, mode, None))


def _tc() -> None:
    hook = TcHook(ifindex=LO, attach_point=BPF_TC_INGRESS)
    with program("sched_cls") as fd:
        options = TcOptions(prog_fd=fd)

        def attach() -> None:
            libbpf.call("bpf_tc_hook_create", ctypes.byref(hook))
            libbpf.call("bpf_tc_attach", ctypes.byref(hook), ctypes.byref(options))

        in_private_network(attach)


def _tcx() -> None:
    kind = AttachType.TCX_INGRESS
    with program("sched_cls") as fd:
        in_private_network(lambda: os.close(create_link(fd, LO, kind)))


def _netkit() -> None:
    kind = AttachType.NETKIT_PRIMARY
    with program("sched_cls", Variant(kind)) as fd:
        try:
            in_private_network(lambda: os.close(create_link(fd, LO, kind)))
        except OSError as error:
            if error.errno != errno.ENXIO:  # lo is none, but the kernel knows what one is
                raise


def _netfilter() -> None:
    place = struct.pack("=IIiI", NFPROTO_IPV4, 0, 1, 0)
    with program("netfilter", Variant(AttachType.NETFILTER)) as fd:
        in_private_network(
            lambda: os.close(create_link(fd, 0, AttachType.NETFILTER, options=place))
        )


def _uprobe_multi() -> None:
    kind = AttachType.TRACE_UPROBE_MULTI
    with (
        program("kprobe", Variant(kind)) as fd,
        closing(os.memfd_create("pytest-bpf-probe")) as file,
    ):
        os.ftruncate(file, os.sysconf("SC_PAGE_SIZE"))
        path = ctypes.create_string_buffer(f"/proc/self/fd/{file}".encode())
        offset = c_uint64()
        addresses = (ctypes.addressof(path), ctypes.addressof(offset), 0, 0)
        place = struct.pack("=4Q3I", *addresses, 1, 0, os.getpid())
        os.close(create_link(fd, 0, kind, options=place))


def _network_namespace(kind: str, attach_type: AttachType) -> None:
    with program(kind, Variant(attach_type)) as fd:

        def attach() -> None:
            with closing(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as place:
                os.close(libbpf.call("bpf_link_create", fd, place, attach_type, None))

        in_private_network(attach)


def _cgroup(kind: str, attach_type: AttachType) -> None:
    with program(kind), closing(os.open(_cgroup2(), os.O_RDONLY | os.O_CLOEXEC)) as place:
        count = ctypes.byref(c_uint32())
        libbpf.call("bpf_prog_query", place, attach_type, 0, None, None, count)


def _cgroup2() -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, filesystem = line.partition(" - ")
        if filesystem.startswith("cgroup2 "):
            return mount.split()[4]
    raise UnavailableError("no cgroup v2 hierarchy is mounted")


def _struct_ops() -> None:
    with program("struct_ops", struct_ops()):
        pass


ATTACH: dict[str, Callable[[], None]] = {
    "tracepoint": _tracepoint,
    "raw_tp": _raw_tracepoint,
    "tp_btf": lambda: _trampoline("tp_btf"),
    "kprobe": lambda: _kprobe(on_return=False),
    "kretprobe": lambda: _kprobe(on_return=True),
    "kprobe_multi": _kprobe_multi,
    "uprobe": lambda: _uprobe(on_return=False),
    "uretprobe": lambda: _uprobe(on_return=True),
    "usdt": lambda: _uprobe(on_return=False),
    "fentry": lambda: _trampoline("fentry"),
    "fexit": lambda: _trampoline("fexit"),
    "fmod_ret": lambda: _trampoline("fmod_ret"),
    "lsm": _lsm,
    "iter": _iterator,
    "perf_event": _perf_event,
    "xdp": _xdp,
    "tc": _tc,
    "tcx": _tcx,
    "netkit": _netkit,
    "netfilter": _netfilter,
    "uprobe_multi": _uprobe_multi,
    "cgroup": lambda: _cgroup("cgroup_skb", AttachType.CGROUP_INET_EGRESS),
    "sockops": lambda: _cgroup("sock_ops", AttachType.CGROUP_SOCK_OPS),
    "sk_lookup": lambda: _network_namespace("sk_lookup", AttachType.SK_LOOKUP),
    "flow_dissector": lambda: _network_namespace("flow_dissector", AttachType.FLOW_DISSECTOR),
    "struct_ops": _struct_ops,
}
"""How each kind is attached: raises `OSError` or `UnavailableError` when it cannot be.

``cgroup`` and ``sockops`` end with the question, not the attaching; ``struct_ops`` with loading.
"""
