"""Attaching tc programs: a filter on an interface's clsact qdisc, which is made when needed."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, PlaceError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.libbpf_options import TcHook, TcOptions
from pytest_bpf.objects.link import Link
from pytest_bpf.objects.targets import interface, named, told

if TYPE_CHECKING:
    from pytest_bpf.objects.loaded import LoadedProgram
    from pytest_bpf.objects.targets import Options

DIRECTIONS = {"ingress": 1, "egress": 2}
"""``BPF_TC_INGRESS`` and ``BPF_TC_EGRESS`` of ``bpf/libbpf.h``."""

Where = tuple[int, int]
"""A network namespace's inode and an interface's index."""

_lock = threading.Lock()
_filters: Counter[Where] = Counter()
_ours: set[Where] = set()
"""Where the qdisc was made here, so that it goes with the last filter."""


def attach(program: LoadedProgram, target: Any, options: Options) -> Link:
    """Attach at the ingress or egress of an interface, as the option or else the section says."""
    direction = options.direction or next((d for d in DIRECTIONS if d in program.section), None)
    if direction not in DIRECTIONS:
        raise AttachError(
            f"program {program.name!r} (tc): its section {program.section!r} does not say where; "
            "pass direction='ingress' or direction='egress'"
        )
    ifindex, run = interface(program, target)
    where, filter_ = run(_add, program.fd, ifindex, DIRECTIONS[direction])

    def undo() -> None:
        with suppress(PlaceError):  # the namespace is gone, and the filter with it
            run(_remove, ifindex, DIRECTIONS[direction], filter_)
        if _let_go(where):
            with suppress(PlaceError):
                run(_destroy_qdisc, ifindex)

    return Link(program.name, f"{named(target)} {direction}", undo)


def _add(prog_fd: int, ifindex: int, point: int) -> tuple[Where, TcOptions]:
    hook, filter_ = TcHook(ifindex=ifindex, attach_point=point), TcOptions(prog_fd=prog_fd)
    where = (os.stat("/proc/thread-self/ns/net").st_ino, ifindex)  # noqa: PTH116 (no file)
    with _lock:
        try:
            told("bpf_tc_hook_create", ctypes.byref(hook))
            _ours.add(where)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        _filters[where] += 1
    try:
        told("bpf_tc_attach", ctypes.byref(hook), ctypes.byref(filter_))
    except OSError:
        if _let_go(where):
            _destroy_qdisc(ifindex)
        raise
    return where, TcOptions(handle=filter_.handle, priority=filter_.priority)


def _remove(ifindex: int, point: int, filter_: TcOptions) -> None:
    hook = TcHook(ifindex=ifindex, attach_point=point)
    libbpf.function("bpf_tc_detach")(ctypes.byref(hook), ctypes.byref(filter_))


def _let_go(where: Where) -> bool:
    """Count a filter out; say whether the qdisc is ours and that was the last one."""
    with _lock:
        _filters[where] -= 1
        if _filters[where]:
            return False
        del _filters[where]
        last = where in _ours
        _ours.discard(where)
        return last


def _destroy_qdisc(ifindex: int) -> None:
    hook = TcHook(ifindex=ifindex, attach_point=DIRECTIONS["ingress"] | DIRECTIONS["egress"])
    libbpf.function("bpf_tc_hook_destroy")(ctypes.byref(hook))
