"""Where a search runs: on one CPU, with programs that are ready for it.

Its thread has its name back afterwards, and the programs' objects have their state back.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from pytest_bpf.errors import RunError
from pytest_bpf.fuzz.form import choose_form
from pytest_bpf.fuzz.subject import KINDS, Subject, check_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_bpf.fuzz.hooked import Stimulus
    from pytest_bpf.objects import Object, Program


@contextmanager
def all_subjects(
    objects: Sequence[Object],
    programs: Sequence[Program],
    inputs: Iterable[str] = (),
    leave_out: Iterable[str] = (),
    stimulus: Stimulus | None = None,
) -> Iterator[list[Subject]]:
    """Give programs that get the same inputs, on one CPU; then they are unloaded."""
    left_out = tuple(leave_out)
    with ExitStack() as ends:
        ends.enter_context(_one_cpu())
        driven = stimulus is not None
        shape = choose_form(objects, programs, tuple(inputs), left_out, driven=driven)
        yield [
            ends.enter_context(closing(Subject(obj, program, shape, left_out, stimulus)))
            for obj, program in zip(objects, programs, strict=True)
        ]


@contextmanager
def one_subject(obj: Object, name: str | None, inputs: Iterable[str] = ()) -> Iterator[Subject]:
    """Give the program of that name, or the only one that can be test-run; then put its state back.

    Raises `RunError`, `UnknownNameError`.
    """
    program = _choose_program(obj, name)
    with all_subjects((obj,), (program,), inputs) as (subject,):
        try:
            yield subject
        finally:
            subject.reset()


def _choose_program(obj: Object, name: str | None) -> Program:
    if name is None:
        able = [n for n, program in obj.programs.items() if program.kind.test_run in KINDS]
        if len(able) > 1:
            raise RunError(
                f"{obj.path.name} has several programs that can be test-run; say by program= "
                f"which: {', '.join(able)}"
            )
        if not obj.programs:
            raise RunError(f"{obj.path.name} has no program")
        name = able[0] if able else next(iter(obj.programs))
    check_runs(obj.programs[name])
    return obj.programs[name]


@contextmanager
def _one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU, and with its name."""
    cpus = sorted(os.sched_getaffinity(0))
    with open("/proc/thread-self/comm", encoding="utf-8") as file:  # noqa: PTH123
        name = file.read().rstrip("\n")
    os.sched_setaffinity(0, cpus[:1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
        with open("/proc/thread-self/comm", "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(name)
