"""How many instructions a run of a program takes, counted by a build of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_bpf.fuzz.subject import name_setter
from pytest_bpf.kernel.programs.runner import REFUSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.fuzz.subject import Subject


class Meter:
    """Counts the instructions of runs; a call of a helper counts as one."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._twin = subject.twin("count")
        self._run = subject.runner_of(self._twin)
        self._set_name = name_setter(subject.shape)
        program = self._twin.build.flow
        ends = [*program.blocks[1:], len(program.instructions)]
        sizes = [
            sum(at not in program.second for at in range(start, end))
            for start, end in zip(program.blocks, ends, strict=True)
        ]
        self._sizes = np.array(sizes, dtype=np.uint64)

    def measure(self, sequence: Sequence[bytes]) -> int:
        """Return the instructions of the last of some runs from the first state on.

        It is -1 when the kernel refuses the input.
        """
        self._subject.reset()
        for data in sequence[:-1]:
            self.step(data)
        return self.step(sequence[-1])

    def step(self, data: bytes) -> int:
        """Return the instructions of one run from the state as it is; -1 for a refused one."""
        self._twin.clear()
        if self._set_name is not None:
            self._set_name(data)
        if self._run(data) is REFUSED:
            return -1
        counts = np.frombuffer(self._twin.counters, dtype=np.uint64, count=len(self._sizes))
        return int(counts @ self._sizes)

    def close(self) -> None:
        """Unload the build that counts."""
        self._twin.close()
