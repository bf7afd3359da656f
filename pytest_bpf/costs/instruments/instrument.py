"""Which instrument measures a run here, and what measuring alone reads: the empty program's."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import TYPE_CHECKING, Literal

from pytest_bpf.costs.instruments.dispatcher import attach_to_lo
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.features.variants import tracing
from pytest_bpf.kernel.programs import assembly, load
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.exact import is_exact
from pytest_bpf.kernel.sys.info import ProgramInfo, read_info
from pytest_bpf.kernel.sys.libbpf_options import RunOptions
from pytest_bpf.kinds.programs import parse_section

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

MOVE = assembly.move(0, 0)
"""``r0 = 0``: one machine instruction once it is compiled."""

EXTRA = 50
"""How many instructions the second program of the self-check has more than the first."""

BATCHES, RUNS, CALLS, LOADS = 15, 100, 20, 4

FRAME = bytes(64)


@dataclass(frozen=True)
class Instrument:
    """What a run is measured in: ``unit``; ``empty`` is what a program that only returns reads."""

    unit: Literal["ns", "instructions"]
    empty: float

    @property
    def exact(self) -> bool:
        """Whether it counts instructions."""
        return self.unit == "instructions"


@cache
def instrument() -> Instrument:
    """Return what measures here: guest instructions in exact mode, else the kernel's nanoseconds.

    In exact mode it is checked once a process: one CPU, and ``r0 = 0`` fifty times more must be
    fifty instructions more (without the JIT, fifty times the same whole number). Raises
    `UnavailableError` when it is not, rather than give figures that look exact.
    """
    empty = _read_returning(0)
    if not is_exact():
        return Instrument("ns", empty)
    if (cpus := os.cpu_count()) != 1:
        raise UnavailableError(f"exact mode needs one CPU, this machine has {cpus}")
    longer = _read_returning(EXTRA)
    more = longer - empty
    if more <= 0 or (more != EXTRA if _compiled() else more % EXTRA):
        raise UnavailableError(
            f"exact mode does not count here: {EXTRA} instructions more read {more:.2f} more "
            f"({empty:.2f}, then {longer:.2f}); this machine runs, or was saved, without qemu's "
            "-icount, or with KVM: start it with --exact"
        )
    return Instrument("instructions", empty)


def empty_of(section: str) -> float | None:
    """Return what an empty program reads that is called as one of ``section`` is, None if unknown.

    There are four ways: by a trampoline; by the dispatcher of XDP programs, which takes less time
    (in exact mode its instruction counts as the program's); as a raw tracepoint, which counts an
    instruction less; and all others, as by ``BPF_PROG_RUN``.
    """
    parsed = parse_section(section)
    caller = parsed.kind.caller if parsed else ""
    if caller == "trampoline":
        return trampoline()
    if caller == "raw_tracepoint" and instrument().exact:
        return raw_tracepoint()
    if caller == "dispatcher" and not instrument().exact:
        return dispatched() or instrument().empty
    return instrument().empty


@cache
def dispatched() -> float | None:
    """Return what an empty XDP program reads; None where it cannot be attached.

    It is loaded several times, as one in forty takes a tenth longer than the others; the second
    least it is.
    """
    readings = []
    try:
        for _ in range(LOADS):
            with FixedProgram(kind="xdp") as program, attach_to_lo(program.fd):
                readings.append(_read_in_turn(program.per_run))
    except (OSError, UnavailableError):
        return None
    return sorted(readings)[1]


@cache
def trampoline() -> float | None:
    """Return what an empty program reads that a trampoline calls; None where there is none."""
    try:
        with load.program("tracing", tracing("fentry")) as fd:
            return _read_attached(fd, None, lambda: _run(fd))
    except (OSError, UnavailableError):
        return None


@cache
def raw_tracepoint() -> float | None:
    """Return what an empty program reads on a raw tracepoint; None where there is none."""
    try:
        with load.program("raw_tracepoint") as fd:
            return _read_attached(fd, b"sys_enter", os.getppid)
    except OSError:
        return None


def _read_attached(fd: int, hook: bytes | None, act: Callable[[], object]) -> float:
    """Return what a run of an attached program reads, which ``act`` makes run."""
    with load.closing(libbpf.call("bpf_raw_tracepoint_open", hook, fd)):
        return _read_in_turn(lambda: _batch(fd, act))


def _read_in_turn(per_run: Callable[[], float]) -> float:
    """Return what an empty program reads that is called in another way, in batches of ``per_run``.

    By a clock both ways are read in turn, as whatever disturbs one disturbs the other.
    """
    with statistics():
        if is_exact():
            return _typical([per_run() for _ in range(BATCHES + 1)])
        with FixedProgram() as program:
            pairs = [(per_run(), program.per_run()) for _ in range(BATCHES + 1)][1:]
    return instrument().empty * median(read / plain for read, plain in pairs)


def _run(fd: int) -> None:
    libbpf.call("bpf_prog_test_run_opts", fd, ctypes.byref(RunOptions()))


class FixedProgram:
    """A program that is run by itself, in batches of ``runs``; its descriptor is ``fd``.

    ``instructions`` are those of a packet program of type ``kind``; without any it only returns.
    """

    def __init__(
        self,
        instructions: bytes = assembly.RETURN_0,
        runs: int = RUNS,
        kind: str = "socket_filter",
    ) -> None:
        self._frame = ctypes.create_string_buffer(FRAME, len(FRAME))
        self._options = RunOptions(repeat=runs, data_size_in=len(FRAME))
        self._options.data_in = ctypes.cast(self._frame, ctypes.c_char_p)
        self._loaded = load.program(kind, instructions=instructions)

    def __enter__(self) -> Self:
        self.fd = self._loaded.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._loaded.__exit__(None, None, None)

    def per_run(self) -> float:
        """Return what one run reads in a batch, while statistics are on."""
        return _batch(self.fd, self._run, calls=1)

    def _run(self) -> None:
        libbpf.call("bpf_prog_test_run_opts", self.fd, ctypes.byref(self._options))


def _read_returning(moves: int) -> float:
    """Return what a run of ``moves`` times ``r0 = 0`` more than needed reads."""
    with statistics(), FixedProgram(MOVE * moves + assembly.RETURN_0) as program:
        return _typical([program.per_run() for _ in range(BATCHES + 1)])


def _typical(batches: list[float]) -> float:
    """Return what stands for batches, the first of which is cold: by a clock, the least."""
    return median(batches[1:]) if is_exact() else min(batches[1:])


def _batch(fd: int, act: Callable[[], object], calls: int = CALLS) -> float:
    """Return what a run reads, in one batch of ``calls``."""
    before = read_info(fd, ProgramInfo)
    for _ in range(calls):
        act()
    after = read_info(fd, ProgramInfo)
    return float((after.run_time_ns - before.run_time_ns) / (after.run_cnt - before.run_cnt))


def _compiled() -> bool:
    with load.program("socket_filter") as fd:
        return bool(read_info(fd, ProgramInfo).jited_prog_len)
