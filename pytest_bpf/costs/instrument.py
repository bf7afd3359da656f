"""Which instrument measures a run here, and what measuring alone reads: the empty program's."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Literal

from pytest_bpf.costs.statistics import statistics
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import libbpf, probe
from pytest_bpf.kernel.exact import is_exact
from pytest_bpf.kernel.info import ProgramInfo, read_info
from pytest_bpf.kernel.libbpf_options import RunOptions

MOVE = probe.instruction(0xB7)
"""``r0 = 0``: one machine instruction once it is compiled."""

ADDED = 50
"""How many instructions the second program of the self-check has more than the first."""

BATCHES, RUNS = 15, 100

FRAME = bytes(64)


@dataclass(frozen=True)
class Instrument:
    """What a run is measured in: ``unit``; ``empty`` is what a program that only returns reads."""

    unit: Literal["ns", "instructions"]
    empty: float


@cache
def instrument() -> Instrument:
    """Return what measures here: guest instructions in exact mode, else the kernel's nanoseconds.

    In exact mode it is checked once a process: one CPU, and ``r0 = 0`` fifty times more must be
    fifty instructions more (without the JIT, fifty times the same whole number). Raises
    `UnavailableError` when it is not, rather than give figures that look exact.
    """
    if not is_exact():
        return Instrument("ns", _median(0))
    if (cpus := os.cpu_count()) != 1:
        raise UnavailableError(f"exact mode needs one CPU, this machine has {cpus}")
    empty, longer = _median(0), _median(ADDED)
    more = longer - empty
    compiled = _compiled()
    if more <= 0 or (more != ADDED if compiled else more % ADDED):
        raise UnavailableError(
            f"exact mode does not count here: {ADDED} instructions more read {more:.2f} more "
            f"({empty:.2f}, then {longer:.2f}); the machine was not started, or not saved, with "
            "qemu's -icount, or it runs under KVM: remove its saved state and use --exact"
        )
    return Instrument("instructions", empty)


def _median(moves: int) -> float:
    """Return the median over batches of what a run of ``moves`` times ``r0 = 0; exit`` reads."""
    options = RunOptions(repeat=RUNS, data_size_in=len(FRAME))
    options.sz = ctypes.sizeof(options)
    options.data_in = ctypes.cast(ctypes.c_char_p(FRAME), ctypes.c_void_p)
    with statistics(), probe.program("socket_filter", instructions=_moving(moves)) as fd:
        times = []
        for _ in range(BATCHES + 1):
            libbpf.call("bpf_prog_test_run_opts", fd, ctypes.byref(options))
            times.append(int(read_info(fd, ProgramInfo).run_time_ns))
    return median(after - before for before, after in zip(times, times[1:], strict=False)) / RUNS


def _moving(moves: int) -> bytes:
    return MOVE * moves + probe.RETURN_0


def _compiled() -> bool:
    with probe.program("socket_filter") as fd:
        return bool(read_info(fd, ProgramInfo).jited_prog_len)
