"""perf events, as far as programs are attached to them: ``perf_event_open(2)`` and one ioctl."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
from pathlib import Path

from pytest_bpf.errors import UnavailableError

TRACEPOINT, SOFTWARE = 2, 1
"""``PERF_TYPE_*``."""

CPU_CLOCK = 0
"""``PERF_COUNT_SW_CPU_CLOCK``, in nanoseconds."""

_SYSCALLS = {"x86_64": 298, "s390x": 331, "ppc64le": 319}
_SYSCALL_OF_OTHERS = 241
_CLOEXEC = 1 << 3
_SET_BPF = 0x40042408
_DISABLED = 1 << 0
_DEVICES = Path("/sys/bus/event_source/devices")


def attach(kind: int, config: int, program: int, *, period: int = 0, extra: int = 0) -> None:
    """Attach a program to a new event on one CPU that counts nothing, and take both apart again.

    ``extra`` is ``config1`` of ``struct perf_event_attr``. Raises `OSError`.
    """
    size = 72
    attributes = struct.pack(
        "=IIQQQQQIIQQ", kind, size, config, period, 0, 0, _DISABLED, 0, 0, extra, 0
    )
    cpu = min(os.sched_getaffinity(0))
    number = _SYSCALLS.get(platform.machine(), _SYSCALL_OF_OTHERS)
    event = ctypes.CDLL(None, use_errno=True).syscall(number, attributes, -1, cpu, -1, _CLOEXEC)
    if event < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "perf_event_open")
    try:
        fcntl.ioctl(event, _SET_BPF, program)
    finally:
        os.close(event)


def attach_dynamic(device: str, target: str, program: int, *, on_return: bool) -> None:
    """Attach a program to a new ``kprobe`` or ``uprobe`` event at offset 0 of ``target``.

    ``target`` is a kernel function or a file. Raises `OSError`, and `UnavailableError` when the
    kernel has no such events.
    """
    try:
        kind = int((_DEVICES / device / "type").read_text(encoding="ascii"))
        bit = (_DEVICES / device / "format/retprobe").read_text(encoding="ascii")
    except OSError:
        raise UnavailableError(f"this kernel has no {device}s") from None
    config = 1 << int(bit.strip().removeprefix("config:")) if on_return else 0
    name = ctypes.create_string_buffer(target.encode())
    attach(kind, config, program, extra=ctypes.addressof(name))
