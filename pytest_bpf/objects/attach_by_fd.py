"""Attaching programs that libbpf did not load here, by their descriptors alone.

Each function is found by the name of the one of libbpf that does the same with a ``struct
bpf_program *``, and takes the same arguments after it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import libbpf, perf_event
from pytest_bpf.kernel.mounts import tracefs

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects.loaded import LoadedProgram

PERF_EVENT = 41
"""``BPF_PERF_EVENT`` of ``enum bpf_attach_type``."""

Made = tuple[int, "Callable[[], object]"]
"""A link's descriptor, -1 where there is none, and what undoes it."""


def link(program: LoadedProgram, name: str, *arguments: Any) -> Made:
    """Do what libbpf's function ``name`` does; raise `OSError` with the kernel's code."""
    how = _FUNCTIONS.get(name)
    if how is None:
        raise OSError(errno.EOPNOTSUPP, libbpf.reason(errno.EOPNOTSUPP), name)
    return how(program, *arguments)


def _by_section(program: LoadedProgram) -> Made:
    kind, _, target = program.section.partition("/")
    if kind in {"tracepoint", "tp"} and "/" in target:
        category, _, event = target.partition("/")
        return _tracepoint(program, category.encode(), event.encode())
    if kind in {"raw_tracepoint", "raw_tp"} and target:
        return _raw_tracepoint(program, target.encode())
    if kind in {"kprobe", "kretprobe"} and target:
        return _probe(program, "kprobe", target.encode(), 0, on_return=kind == "kretprobe")
    if program.type in {"tracing", "lsm"}:
        return _raw_tracepoint(program, None)
    raise OSError(errno.ENOTSUP, libbpf.reason(errno.ENOTSUP), "attach")


def _tracepoint(program: LoadedProgram, category: bytes, name: bytes) -> Made:
    folder = tracefs()
    assert folder is not None
    number = (folder / "events" / os.fsdecode(category) / os.fsdecode(name) / "id").read_text()
    attributes = perf_event.Attributes(type=perf_event.TRACEPOINT, config=int(number))
    attributes.sample_period = 1
    return _perf(program, perf_event.open_event(attributes, cpu=_cpu()))


def _raw_tracepoint(program: LoadedProgram, name: bytes | None) -> Made:
    return _owned(libbpf.call("bpf_raw_tracepoint_open", name, program.fd))


def _kprobe(program: LoadedProgram, function: bytes, options: Any) -> Made:
    told = options._obj  # noqa: SLF001 (what ctypes.byref refers to)
    return _probe(program, "kprobe", function, told.offset, on_return=told.retprobe)


def _uprobe(program: LoadedProgram, pid: int, binary: bytes, offset: int, options: Any) -> Made:
    told = options._obj  # noqa: SLF001 (what ctypes.byref refers to)
    if told.func_name:
        raise UnavailableError(
            f"program {program.name!r}: libbpf looks functions up for its own programs alone; pass "
            "offset=, the function's place in the file, instead of function="
        )
    return _probe(program, "uprobe", binary, offset, on_return=told.retprobe, pid=pid)


def _probe(
    program: LoadedProgram,
    device: str,
    target: bytes,
    offset: int,
    *,
    on_return: bool,
    pid: int = -1,
) -> Made:
    event = perf_event.open_dynamic(device, target, offset, on_return=on_return, pid=pid)
    return _perf(program, event)


def _perf(program: LoadedProgram, event: int) -> Made:
    """Attach to a perf event, by a link (5.15) or else by the event itself."""
    try:
        fd = libbpf.call("bpf_link_create", program.fd, event, PERF_EVENT, None)
    except OSError as error:
        if error.errno != errno.EINVAL:
            os.close(event)
            raise
        try:
            fcntl.ioctl(event, perf_event.SET_BPF, program.fd)
            fcntl.ioctl(event, perf_event.ENABLE, 0)
        except OSError:
            os.close(event)
            raise
        return -1, partial(os.close, event)
    try:
        fcntl.ioctl(event, perf_event.ENABLE, 0)
    except OSError:
        os.close(fd)
        os.close(event)
        raise

    def undo() -> None:
        os.close(fd)
        os.close(event)

    return fd, undo


def _at(program: LoadedProgram, where: int) -> Made:
    kind = program.expected_attach_type
    return _owned(libbpf.call("bpf_link_create", program.fd, where, kind, None))


def _owned(fd: int) -> Made:
    return fd, partial(os.close, fd)


def _cpu() -> int:
    return min(perf_event.online_cpus())


_FUNCTIONS: dict[str, Callable[..., Made]] = {
    "bpf_program__attach": _by_section,
    "bpf_program__attach_tracepoint": _tracepoint,
    "bpf_program__attach_raw_tracepoint": _raw_tracepoint,
    "bpf_program__attach_kprobe_opts": _kprobe,
    "bpf_program__attach_uprobe_opts": _uprobe,
    "bpf_program__attach_perf_event": _perf,
    "bpf_program__attach_cgroup": _at,
    "bpf_program__attach_netns": _at,
}
