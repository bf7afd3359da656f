"""A fixed program that is measured beside every batch, to know how the machine was just then.

Another process on the same core, or on the other half of it, makes everything slower for a while,
memory and clocks more than arithmetic. So the program does what BPF programs do: it reads the
clock, and looks up and updates a key of a hash map. What it reads tells the batches in which the
machine was disturbed, and those do not count (`pytest_bpf.costs.figures.intervals.undisturbed`).
"""

from __future__ import annotations

import math
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.costs.figures.intervals import NEAR
from pytest_bpf.costs.instruments.instrument import FixedProgram
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.programs import assembly
from pytest_bpf.kernel.sys import exact
from pytest_bpf.kinds.flags import MapFlags

if TYPE_CHECKING:
    from typing_extensions import Self

KEY, VALUE = -8, -16
"""Where they are on the stack."""

READINGS = 4
"""Of the clock, in a run."""


PATIENCE, ALL_PATIENCE = 1.0, 30.0
"""Seconds to wait for a machine that is busy with something else: once, and in all."""


@dataclass
class _Machine:
    """The ``least`` that the program has read here, and how much ``patience`` is left."""

    least: float = math.inf
    patience: float = ALL_PATIENCE


_MACHINE = _Machine()


class Reference:
    """The program and its map, from ``__enter__`` to ``__exit__``."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # without a random seed the key is in the same bucket every time
            table = elements.create("hash", 8, 8, 1024, MapFlags.ZERO_SEED)
            stack.callback(os.close, table)
            self._program = stack.enter_context(FixedProgram(_instructions(table)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def per_run(self) -> float:
        """Return what one run reads in a batch, in ns, while statistics are on."""
        read = self._program.per_run()
        _MACHINE.least = min(_MACHINE.least, read)
        return read

    def wait_until_quiet(self) -> None:
        """Wait until it reads hardly more than the least that it ever has in this process.

        What disturbs a machine comes and goes in seconds. It waits `PATIENCE` seconds at most, and
        as many as `ALL_PATIENCE` in a process: a machine may be busy all day.
        """
        if exact.is_exact():
            return
        start = time.monotonic()
        until = start + min(PATIENCE, _MACHINE.patience)
        while self.per_run() > NEAR * _MACHINE.least and time.monotonic() < until:
            time.sleep(0.002)  # let go of the CPU: there is no event to wait for
        _MACHINE.patience -= time.monotonic() - start


def _instructions(table: int) -> bytes:
    look_up = assembly.load_map(1, table) + assembly.stack(2, KEY) + assembly.call(assembly.LOOKUP)
    update = (
        assembly.load_map(1, table)
        + assembly.stack(2, KEY)
        + assembly.stack(3, VALUE)
        + assembly.move(4, 0)
        + assembly.call(assembly.UPDATE)
    )
    return (
        assembly.store(KEY, 7)
        + assembly.store(VALUE, 1)
        + assembly.call(assembly.CLOCK) * READINGS
        + look_up
        + update
        + assembly.RETURN_0
    )
