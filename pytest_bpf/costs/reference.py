"""A fixed program that is measured beside every batch, to know how the machine was just then.

Another process on the same core, or on the other half of it, makes everything slower for a while,
memory and clocks more than arithmetic. So the program does what BPF programs do: it reads the
clock, and looks up and updates a key of a hash map. What it reads tells the batches in which the
machine was disturbed, and those do not count (`pytest_bpf.costs.intervals.undisturbed`).
"""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_bpf.costs.instrument import FixedProgram
from pytest_bpf.kernel import assembly, enums, libbpf

if TYPE_CHECKING:
    from typing_extensions import Self

KEY, VALUE = -8, -16
"""Where they are on the stack."""

ZERO_SEED = 1 << 6
"""``BPF_F_ZERO_SEED``: the same key is in the same bucket every time."""

READINGS = 4
"""Of the clock, in a run."""


class Reference:
    """The program and its map, from ``__enter__`` to ``__exit__``."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            table = _table()
            stack.callback(os.close, table)
            self._program = stack.enter_context(FixedProgram(_instructions(table)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def per_run(self) -> float:
        """Return what one run reads in a batch, in ns, while statistics are on."""
        return self._program.per_run()


def _table() -> int:
    options = struct.pack("=Q6IQ2I", 48, 0, 0, 0, 0, 0, ZERO_SEED, 0, 0, 0)
    number = enums.map_type_id("hash")
    return int(libbpf.call("bpf_map_create", number, b"reference", 8, 8, 1024, options))


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
