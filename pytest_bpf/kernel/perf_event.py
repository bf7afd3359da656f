"""perf_event_open(2), for what libbpf leaves to its caller."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
from ctypes import c_uint32, c_uint64

SOFTWARE = 1
"""``PERF_TYPE_SOFTWARE``."""

CPU_CLOCK, BPF_OUTPUT = 0, 10
"""``PERF_COUNT_SW_CPU_CLOCK`` and ``PERF_COUNT_SW_BPF_OUTPUT``."""

SAMPLE_RAW = 1 << 10
FREQUENCY = 1 << 10
"""The bit ``freq`` of the flags of ``struct perf_event_attr``."""

CLOSE_ON_EXEC = 1 << 3
ENABLE = 0x2400
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
        ("rest", c_uint64 * 8),
    )


def open_event(attributes: Attributes, *, pid: int = -1, cpu: int = -1) -> int:
    """Return the descriptor of a new event; -1 stands for every task or every CPU.

    Raises `OSError` with the kernel's code.
    """
    attributes.size = ctypes.sizeof(attributes)
    number = _NUMBERS[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, ctypes.byref(attributes), pid, cpu, -1, CLOSE_ON_EXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "perf_event_open")
    return int(fd)


def open_bpf_output(cpu: int) -> int:
    """Return an enabled event that takes what BPF programs put out on one CPU."""
    attributes = Attributes(
        type=SOFTWARE, config=BPF_OUTPUT, sample_period=1, sample_type=SAMPLE_RAW, wakeup_events=1
    )
    fd = open_event(attributes, cpu=cpu)
    fcntl.ioctl(fd, ENABLE, 0)
    return fd


def open_cpu_clock(frequency: int, *, pid: int = -1, cpu: int = -1) -> int:
    """Return an event that fires ``frequency`` times a second of CPU time."""
    attributes = Attributes(
        type=SOFTWARE, config=CPU_CLOCK, sample_period=frequency, flags=FREQUENCY
    )
    return open_event(attributes, pid=pid, cpu=cpu)
