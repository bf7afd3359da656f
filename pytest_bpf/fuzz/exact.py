"""What runs cost in exact mode: the machine's instructions, of a program as it ships."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_bpf.costs.instruments.dispatcher import in_dispatcher
from pytest_bpf.costs.instruments.instrument import empty_of, instrument
from pytest_bpf.fuzz.subject import name_setter
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys.exact import is_exact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_bpf.fuzz.subject import Subject

ROUNDS = 3
"""How often runs are counted: an interrupt in one of them makes it more, never less."""


@contextmanager
def instruction_counter(subject: Subject) -> Iterator[Callable[[Sequence[bytes]], float] | None]:
    """Give what counts the instructions of a run, on average over inputs from the first state on.

    What an empty program takes is subtracted; it is -1 where the kernel refuses all inputs. The
    program asks clocks and the like itself. None where nothing counts: outside of exact mode, and
    for a program that a stimulus drives.
    """
    empty = empty_of(subject.program.section) if is_exact() and instrument().exact else None
    if empty is None or subject.stimulus is not None:
        yield None
        return
    program, run = subject.program, subject.shipped_runner()
    set_name = name_setter(subject.shape)

    def count(inputs: Sequence[bytes]) -> float:
        least = float("inf")
        for _ in range(ROUNDS):
            subject.reset()
            before = program.info
            for data in inputs:
                if set_name is not None:
                    set_name(data)
                run(data)
            after = program.info
            runs = after.run_cnt - before.run_cnt
            if not runs:
                return -1.0
            least = min(least, (after.run_time_ns - before.run_time_ns) / runs)
        return least - empty

    with in_dispatcher([program]), statistics():
        yield count
