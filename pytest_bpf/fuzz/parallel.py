"""Both programs on two CPUs at once: an update that is lost there is lost nowhere else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs.assembly import UPDATE
from pytest_bpf.kernel.programs.flow import ST, STX, is_helper_call
from pytest_bpf.kernel.sys.threads import run_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.fuzz.pair import Pair
    from pytest_bpf.fuzz.state import Snapshot
    from pytest_bpf.fuzz.subject import Subject
    from pytest_bpf.kernel.programs.flow import Flow

ATOMIC = 0xC0
"""``BPF_ATOMIC``, a mode of stores."""

RUNS = 200_000
"""How often a CPU runs a program in a row, so that both are at it at the same time."""

FIRST, AGAIN, SURE = 10, 10, 16
"""How often the program after may run until it loses, and again; and how many times as often the
program before must lose nothing, so that both losing alike is no difference.

Two programs that lose alike are told apart by chance in at most 0.24 % of all cases: those that
lose in 1.8 % of their runs. Those that lose in most runs, or in none, never are."""

INPUTS = 2
"""How many inputs are tried, those that reach the most."""


def may_lose(program: Flow) -> bool:
    """Tell whether a program can lose an update: it stores elsewhere than on its own stack.

    A store that is atomic loses none; an update of an element may.
    """
    for at, insn in enumerate(program.instructions):
        if at in program.second:
            continue
        stores = insn.code & 7 == ST or (insn.code & 7 == STX and insn.code & 0xE0 != ATOMIC)
        if (stores and insn.to != 10) or (is_helper_call(insn) and insn.value == UPDATE):
            return True
    return False


class Race:
    """Runs two programs on two CPUs at once; ``gap`` is why that tells nothing, or empty."""

    def __init__(self, pair: Pair, cpus: Sequence[int]) -> None:
        self._pair, self._cpus = pair, cpus[:2]
        self.gap = ""
        self._met = False

    def lost_updates(self, corpus: Sequence[bytes]) -> str:
        """Return how the state differs after runs on two CPUs at once, "" when it does not.

        What counts is a state that the program before has each time, on two CPUs at once as on one
        after the other, and the program after has not.
        """
        pair = self._pair
        for data in corpus[-INPUTS:]:
            expected = [self._state(subject, data, self._cpus[:1]) for subject in pair.subjects]
            if differences := pair.differences(expected[0], expected[1], all_sums=True):
                self.gap = f"after {2 * RUNS} runs on one CPU {differences[0]}"
                continue
            tries, lost = self._losses(1, expected[1], data, FIRST)
            if lost is None:
                continue
            again, second = self._losses(1, expected[1], data, AGAIN)
            if second is None:
                continue
            if self._losses(0, expected[0], data, SURE * (tries + again))[1] is not None:
                continue
            wrong = pair.differences(expected[0], lost, all_sums=True)
            return (
                f"after {2 * RUNS} runs on two CPUs at once, and only then: {wrong[0]}; an update "
                "is lost: add atomically, or on each CPU by itself\n"
                + pair.subjects[0].shape.show(data)
            )
        if not self._met and not self.gap:
            self.gap = "the machine was so busy that they took turns"
        return ""

    def _losses(
        self, side: int, expected: Snapshot, data: bytes, most: int
    ) -> tuple[int, Snapshot | None]:
        """Run at once until the state is not the expected one; return how often, and the state."""
        for number in range(1, most + 1):
            state = self._state(self._pair.subjects[side], data, self._cpus)
            if self._pair.differences_of(side, expected, state):
                return number, state
        return most, None

    def _state(self, subject: Subject, data: bytes, cpus: Sequence[int]) -> Snapshot:
        """Return the state after ``2 * RUNS`` runs, on one CPU or shared by two at once."""
        subject.reset()
        subject.run(data)
        packet, context = subject.shape.rest(data), None
        if subject.shape.context is not None:
            packet, context = subject.shape.context.given(data)

        def run(_: int) -> float:
            start = time.thread_time()
            for _ in range(2 // len(cpus)):
                subject.hit.program.test_run(packet, context, repeat=RUNS)
            return time.thread_time() - start

        worked, seconds = run_together(run, len(cpus), cpus)
        # More CPU time than time: for a moment, at least, both CPUs were at work.
        self._met |= len(cpus) > 1 and sum(worked) > seconds
        return subject.state.read()
