"""perf_event_open(2), for what libbpf leaves to its caller."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys
import time
from ctypes import c_uint32, c_uint64
from pathlib import Path

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.sys.libc import syscall

SOFTWARE = 1
"""``PERF_TYPE_SOFTWARE``."""

TRACEPOINT = 2
"""``PERF_TYPE_TRACEPOINT``."""

CPU_CLOCK, BPF_OUTPUT = 0, 10
"""``PERF_COUNT_SW_CPU_CLOCK`` and ``PERF_COUNT_SW_BPF_OUTPUT``."""

SAMPLE_RAW = 1 << 10
FREQUENCY = 1 << 10
"""The bit ``freq`` of the flags of ``struct perf_event_attr``."""

FORMAT_LOST = 1 << 4
"""``PERF_FORMAT_LOST``: reading an event gives its value and what it lost."""

SAMPLE_TIME = 1 << 2
USE_CLOCKID = 1 << 25
"""The bit ``use_clockid`` of the flags: the time is that of ``clockid``."""

CLOCK_ID = int.from_bytes(struct.pack("=Ii", 0, time.CLOCK_MONOTONIC), sys.byteorder)
"""``sample_stack_user`` (0) and ``clockid`` of the attributes."""

DISABLED, WATERMARK = 1 << 0, 1 << 14
"""The bits ``disabled`` and ``watermark`` of the same flags."""

CLOSE_ON_EXEC = 1 << 3
ENABLE, SET_BPF = 0x2400, 0x40042408
DEVICES = Path("/sys/bus/event_source/devices")
_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}


class Attributes(ctypes.Structure):
    """``struct perf_event_attr``, version 0 with room for what came later."""

    _fields_ = (
        ("type", c_uint32),
        ("size", c_uint32),
        ("config", c_uint64),
        ("sample_period", c_uint64),
        ("sample_type", c_uint64),
        ("read_format", c_uint64),
        ("flags", c_uint64),
        ("wakeup_events", c_uint32),
        ("bp_type", c_uint32),
        ("config1", c_uint64),
        ("rest", c_uint64 * 7),
    )


def open_event(attributes: Attributes, *, pid: int = -1, cpu: int = -1) -> int:
    """Return the descriptor of a new event; -1 stands for every task or every CPU.

    Raises `OSError` with the kernel's code.
    """
    attributes.size = ctypes.sizeof(attributes)
    number = _NUMBERS[platform.machine()]
    event = ctypes.byref(attributes)
    return syscall(number, "perf_event_open", event, pid, cpu, -1, CLOSE_ON_EXEC)


def open_bpf_output(cpu: int, watermark: int = 0, *, timed: bool = False) -> tuple[int, bool]:
    """Return an enabled event that takes what BPF programs put out on one CPU.

    ``timed`` records carry their time of ``CLOCK_MONOTONIC``. Whoever polls it is woken by each
    record, or once there are ``watermark`` bytes of them. The other value says whether reading it
    gives how many did not fit (6.0 and later).
    """
    attributes = Attributes(
        type=SOFTWARE,
        config=BPF_OUTPUT,
        sample_period=1,
        sample_type=SAMPLE_RAW | (SAMPLE_TIME if timed else 0),
        flags=(WATERMARK if watermark else 0) | (USE_CLOCKID if timed else 0),
        wakeup_events=watermark or 1,
    )
    if timed:
        attributes.rest[3] = CLOCK_ID
    attributes.read_format = FORMAT_LOST
    try:
        fd = open_event(attributes, cpu=cpu)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        attributes.read_format = 0
        fd = open_event(attributes, cpu=cpu)
    fcntl.ioctl(fd, ENABLE, 0)
    return fd, bool(attributes.read_format)


def open_cpu_clock(frequency: int, *, pid: int = -1, cpu: int = -1) -> int:
    """Return an event that fires ``frequency`` times a second of CPU time."""
    attributes = Attributes(
        type=SOFTWARE, config=CPU_CLOCK, sample_period=frequency, flags=FREQUENCY
    )
    return open_event(attributes, pid=pid, cpu=cpu)


def online_cpus() -> list[int]:
    """Return the numbers of the CPUs that are online."""
    cpus: list[int] = []
    for part in Path("/sys/devices/system/cpu/online").read_text(encoding="ascii").split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def attach_once(kind: int, config: int, program: int, *, period: int = 0) -> None:
    """Attach a program to a new event on one CPU that counts nothing, and take both apart again.

    Raises `OSError`.
    """
    attributes = Attributes(type=kind, config=config, sample_period=period)
    attributes.flags = DISABLED
    event = open_event(attributes, cpu=min(os.sched_getaffinity(0)))
    try:
        fcntl.ioctl(event, SET_BPF, program)
    finally:
        os.close(event)


def attach_dynamic(device: str, target: str, program: int, *, on_return: bool) -> None:
    """Attach a program to a new ``kprobe`` or ``uprobe`` event at offset 0 of ``target``.

    ``target`` is a kernel function or a file. Raises `OSError`, and `UnavailableError` when the
    kernel has no such events.
    """
    cpu = min(os.sched_getaffinity(0))
    event = open_dynamic(device, target.encode(), 0, on_return=on_return, cpu=cpu)
    try:
        fcntl.ioctl(event, SET_BPF, program)
    finally:
        os.close(event)


def open_dynamic(
    device: str, target: bytes, offset: int, *, on_return: bool, pid: int = -1, cpu: int = -1
) -> int:
    """Return a disabled ``kprobe`` or ``uprobe`` event ``offset`` bytes into ``target``.

    ``target`` is a kernel function or a file. Raises `OSError`, and `UnavailableError` when the
    kernel has no such events.
    """
    try:
        kind = int((DEVICES / device / "type").read_text(encoding="ascii"))
        bit = (DEVICES / device / "format/retprobe").read_text(encoding="ascii")
    except OSError:
        raise UnavailableError(f"this kernel has no {device}s") from None
    name = ctypes.create_string_buffer(target)
    attributes = Attributes(type=kind, config1=ctypes.addressof(name), flags=DISABLED)
    attributes.config = 1 << int(bit.strip().removeprefix("config:")) if on_return else 0
    attributes.rest[0] = offset  # config2
    if pid < 0 and cpu < 0:
        cpu = online_cpus()[0]
    return open_event(attributes, pid=pid, cpu=cpu)
