"""What runs cost in exact mode: the machine's instructions."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from pytest_bpf.costs.instruments.dispatcher import in_dispatcher
from pytest_bpf.costs.instruments.instrument import empty_of, instrument
from pytest_bpf.errors import NotMeasuredError
from pytest_bpf.fuzz.subject import name_setter
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys.exact import is_exact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_bpf.fuzz.subject import Subject
    from pytest_bpf.objects.programs.twin import Twin

ROUNDS = 3
"""How often runs are counted: an interrupt in one of them makes it more, never less."""


def require_count(exactly: float | None) -> float:
    """Return instructions that were counted; `NotMeasuredError` for those that were not."""
    if exactly is None:
        raise NotMeasuredError("the machine's instructions are counted in exact mode: --bpf-exact")
    return exactly


@contextmanager
def instruction_counter(subject: Subject) -> Iterator[Callable[..., float] | None]:
    """Give what counts the instructions of a run, on average over inputs from the first state on.

    Those of ``earlier`` inputs, which may be given, too, come before and are not counted.

    What an empty program takes is subtracted; it is -1 where the kernel refuses all inputs. Where
    the input says what a clock shows and the like, a reading of the answer counts in place of the
    helper. None where nothing counts: outside of exact mode, and for a program that a stimulus
    drives.
    """
    empty = empty_of(subject.program.section) if is_exact() and instrument().exact else None
    if empty is None or subject.stimulus is not None:
        yield None
        return
    with subject.twin("plain") as twin, in_dispatcher([twin.program]), statistics():
        yield partial(_count, subject, twin, empty)


def _count(
    subject: Subject,
    twin: Twin,
    empty: float,
    inputs: Sequence[bytes],
    earlier: Sequence[bytes] = (),
) -> float:
    run, set_name = subject.runner_of(twin), name_setter(subject.shape)
    least = float("inf")
    for _ in range(ROUNDS):
        subject.reset()
        before = twin.program.info
        for number, data in enumerate((*earlier, *inputs)):
            if number == len(earlier):
                before = twin.program.info
            if set_name is not None:
                set_name(data)
            run(data)
        after = twin.program.info
        runs = after.run_cnt - before.run_cnt
        if not runs:
            return -1.0
        least = min(least, (after.run_time_ns - before.run_time_ns) / runs)
    return least - empty
