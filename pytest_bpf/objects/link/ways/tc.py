"""Attaching tc programs: a filter on an interface's clsact qdisc, which is made when needed."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_bpf.errors import AttachError, PlaceError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.libbpf_options import TcHook, TcOptions
from pytest_bpf.kernel.sys.tc_filters import TcFilter, add_filter, remove_filter
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.options import direction
from pytest_bpf.objects.link.targets import call_with_message, interface, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

POINTS = {"ingress": 1, "egress": 2}
"""``BPF_TC_INGRESS`` and ``BPF_TC_EGRESS`` of ``bpf/libbpf.h``."""

Where = tuple[int, int]
"""A network namespace's inode and an interface's index."""


class _Place(NamedTuple):
    """A hook of the qdisc, and the filter's priority and handle, 0 to let the kernel choose.

    Chain 0 is the one that runs; the others are for filters that go to them.
    """

    way: str
    priority: int
    handle: int
    chain: int
    name: str

    @property
    def point(self) -> int:
        """The hook as libbpf has it."""
        return POINTS[self.way]


_lock = threading.Lock()
_filters: Counter[Where] = Counter()
_ours: set[Where] = set()
"""Where the qdisc was made here, so that it goes with the last filter."""


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach a filter at the ingress or egress of an interface.

    Filters run by their priority, the lowest first; without one a new filter runs before all that
    are there.
    """
    if any((options.before, options.after, options.first, options.last, options.revision)):
        raise AttachError(
            f"program {program.name!r} ({program.section}): filters are ordered by priority=; "
            "before=, after=, first=, last= and revision= go with mode='tcx'"
        )
    if options.priority is not None and not 0 <= options.priority < 2**16:
        raise AttachError(
            f"program {program.name!r}: priority={options.priority}; a filter's is 1 to {2**16 - 1}"
        )
    way = direction(program, options)
    ifindex, run = interface(program, target)
    name = f"{program.name}:[{program.section}]"
    place = _Place(way, options.priority or 0, options.handle, options.chain, name)
    network, filter_ = run(_add, program.fd, ifindex, place)

    def undo() -> None:
        with suppress(PlaceError):  # the namespace is gone, and the filter with it
            run(_remove, ifindex, place, filter_)
        if _let_go(network):
            with suppress(PlaceError):
                run(_destroy_qdisc, ifindex)

    where = f"{way}, chain {place.chain}" if place.chain else way
    return Link(program.name, f"{target_name(target)} {where}, priority {filter_.priority}", undo)


def _add(prog_fd: int, ifindex: int, place: _Place) -> tuple[Where, TcOptions]:
    hook = TcHook(ifindex=ifindex, attach_point=place.point)
    filter_ = TcOptions(prog_fd=prog_fd, handle=place.handle, priority=place.priority)
    where = (os.stat("/proc/thread-self/ns/net").st_ino, ifindex)  # noqa: PTH116 (no file)
    with _lock:
        try:
            call_with_message("bpf_tc_hook_create", ctypes.byref(hook))
            _ours.add(where)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        _filters[where] += 1
    try:
        if place.chain:
            added = add_filter(
                *(ifindex, place.way, prog_fd, place.name),
                priority=place.priority,
                handle=place.handle,
                chain=place.chain,
            )
            filter_.priority, filter_.handle = added.priority, added.handle
        else:
            call_with_message("bpf_tc_attach", ctypes.byref(hook), ctypes.byref(filter_))
    except OSError:
        if _let_go(where):
            _destroy_qdisc(ifindex)
        raise
    return where, TcOptions(handle=filter_.handle, priority=filter_.priority)


def _remove(ifindex: int, place: _Place, filter_: TcOptions) -> None:
    if place.chain:
        with suppress(OSError):  # somebody has removed it
            each = TcFilter(0, filter_.priority, filter_.handle, place.chain)
            remove_filter(ifindex, place.way, each)
        return
    hook = TcHook(ifindex=ifindex, attach_point=place.point)
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
    hook = TcHook(ifindex=ifindex, attach_point=POINTS["ingress"] | POINTS["egress"])
    libbpf.function("bpf_tc_hook_destroy")(ctypes.byref(hook))
