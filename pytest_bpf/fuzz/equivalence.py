"""Is a program the same as another? Both get the same inputs, guided by where these lead."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.costs.figures.map_memory import map_memory
from pytest_bpf.errors import (
    BpfError,
    RunError,
    UnknownNameError,
    ValueTypeError,
    near_matches,
)
from pytest_bpf.fuzz.exact import instruction_counter, require_count
from pytest_bpf.fuzz.hooked import TYPES, Stimulus, check_driven
from pytest_bpf.fuzz.inputs import PINNED, seeds
from pytest_bpf.fuzz.pair import SIDES, Pair
from pytest_bpf.fuzz.parallel import Race, may_lose
from pytest_bpf.fuzz.paths import Reach, path, reach, run_length
from pytest_bpf.fuzz.place import all_subjects
from pytest_bpf.fuzz.search import limit, search
from pytest_bpf.fuzz.shrink import shrink
from pytest_bpf.fuzz.subject import KINDS, calls, check_runs, helper_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_bpf.fuzz.pair import States
    from pytest_bpf.fuzz.search import Progress
    from pytest_bpf.fuzz.subject import Subject
    from pytest_bpf.objects import Link, Object, Program

STIMULUS = "give bpf_equivalent a stimulus= that makes it run where it is attached, or "
"""What else can be done with a program that cannot be test-run."""

COUNT, DRIVEN_COUNT = 20_000, 2000
"""How many inputs a pair of programs gets, unless it is said; and one that a stimulus drives."""


COSTS = {
    "instructions verified": "verified_insns",
    "states of the verifier": "states",
    "stack, bytes": "stack",
    "machine code, bytes": "jited",
    "memory of maps, bytes": "maps",
    "BPF instructions a run": "insns",
    "instructions a run, exactly": "exactly",
}
"""What a change costs or saves, by the rows of the table, and the members of `Side`."""


class DifferenceError(BpfError, AssertionError):
    """Two programs that ought to be the same differ; the message has the smallest input found."""


@dataclass(frozen=True)
class Side:
    """What is known of one of two programs: how much of it was reached, and what it costs.

    ``insns`` are the instructions of a run, on average over the inputs that reached something new,
    ``exactly`` those of the machine, less those of an empty program, which exact mode counts: None
    where they were not measured. ``states`` are the verifier's, ``stack``, ``jited`` (machine code)
    and ``maps`` (of the object) bytes.
    """

    name: str
    reach: Reach
    verified_insns: int
    states: int
    stack: int
    jited: int
    maps: int
    insns: float
    exactly: float | None

    @property
    def instructions(self) -> float:
        """The machine's instructions of a run; `NotMeasuredError` outside of exact mode."""
        return require_count(self.exactly)


@dataclass(frozen=True)
class Equivalence:
    """Two programs that did the same with every input; its text is a table for a pull request.

    ``notes`` say what was not compared, and what was pinned.
    """

    before: Side
    after: Side
    inputs: int
    refused: int
    seconds: float
    seed: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        sides = (self.before, self.after)
        rows = [
            ("", *(side.name for side in sides), ""),
            ("lines reached", *(side.reach.lines_text for side in sides), ""),
            ("blocks reached", *(side.reach.blocks_text for side in sides), ""),
            *((what, *self._pair(name)) for what, name in COSTS.items()),
        ]
        widths = [max(len(row[at]) for row in rows) for at in range(4)]
        table = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
            for row in rows
        ]
        table.insert(1, "| " + " | ".join("-" * max(3, w) for w in widths) + " |")
        refused = f", {self.refused} of them refused by the kernel" if self.refused else ""
        first = f"the same for {self.inputs} inputs (seed {self.seed}{refused})"
        return "\n".join([first, *table, *self.notes])

    def _pair(self, name: str) -> tuple[str, str, str]:
        one, two = (getattr(side, name) for side in (self.before, self.after))
        if one is None or two is None:
            return "not measured", "not measured", "--bpf-exact"
        texts = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in (one, two)]
        return texts[0], texts[1], f"x {two / one:.2f}" if one else ""


def check_equivalence(
    before: Object,
    after: Object,
    *,
    program: str | tuple[str, str] | None = None,
    inputs: Iterable[str] = (),
    renames: Mapping[str, str] | None = None,
    ignore: Iterable[str] = (),
    states: States | None = None,
    corpus: Sequence[bytes] = (),
    stimulus: Callable[[bytes], object] | None = None,
    attach: Callable[[Program], Link] | None = None,
    count: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
) -> Equivalence:
    """Give two programs the same inputs; see the fixture ``bpf_equivalent``.

    Raises `DifferenceError`, `RunError`, `ValueTypeError`, `UnknownNameError`.
    """
    if before is after:
        raise RunError("before and after are one object, which has one state: load it twice")
    if attach is not None and stimulus is None:
        raise ValueTypeError("attach= says where programs run that a stimulus= drives; it is None")
    left_out = tuple(ignore)
    _check_names(before, after, left_out, renames or {})
    if states is not None and not (_are_two(states) and all(map(callable, states))):
        raise ValueTypeError(
            f"states is {states!r}; it is two functions, of the object before and of that after"
        )
    programs = _programs(before, after, program, driven=stimulus is not None)
    if count is None:
        count = COUNT if stimulus is None else DRIVEN_COUNT
    ends_at = limit(count, seconds, seed)
    cpus = sorted(os.sched_getaffinity(0))
    with ExitStack() as ends:
        driver = None
        if stimulus is not None:
            driver = ends.enter_context(closing(Stimulus(stimulus, attach)))
        made = all_subjects((before, after), programs, inputs, left_out, driver)
        subjects = ends.enter_context(made)
        shape = subjects[0].shape
        pair = Pair(*subjects, renames=renames or {}, states=states)
        ends.callback(pair.put_back)
        if begin := pair.differences(subjects[0].start, subjects[1].start):
            raise RunError(f"before and after do not begin with the same state: {begin[0]}")
        done = search(pair, shape, ends_at, seed, seeds(shape, corpus))
        if done.trouble:
            raise _difference(pair, done, seed)
        notes = _notes(pair)
        if driver is not None:
            _check_reached(pair, driver, done)
            notes.append(
                f"driven by {driver.name}, {done.inputs / done.seconds:.0f} inputs a second: what "
                "the programs return is not compared"
            )
        if shape.kind == "packet" and may_lose(subjects[1].flow):
            notes += _check_at_once(pair, done, cpus)
        sides = [
            _side(side, subject, done, hits)
            for side, subject, hits in zip(SIDES, subjects, done.reached, strict=True)
        ]
    first, second = sides
    return Equivalence(first, second, done.inputs, done.refused, done.seconds, seed, tuple(notes))


def _check_at_once(pair: Pair, done: Progress, cpus: Sequence[int]) -> list[str]:
    """Compare on two CPUs at once; return why that was not done, in a note, or nothing."""
    gap = "this process may use one CPU"
    if len(cpus) > 1:
        race = Race(pair, cpus)
        if lost := race.lost_updates(done.corpus):
            names = (subject.program.name for subject in pair.subjects)
            raise DifferenceError(f"{' and '.join(names)} differ: {lost}")
        gap = race.gap
    return [f"not compared on two CPUs at once: {gap}"] if gap else []


def _check_reached(pair: Pair, driver: Stimulus, done: Progress) -> None:
    """Raise `RunError` when a program never ran: nothing was compared."""
    for subject, hits in zip(pair.subjects, done.reached, strict=True):
        if not any(hits):
            raise RunError(
                f"program {subject.program.name!r} ({subject.program.section}) ran for none of "
                f"{done.inputs} inputs: {driver.name} does not reach it"
            )


def _check_names(
    before: Object, after: Object, ignore: Sequence[str], renames: Mapping[str, str]
) -> None:
    """Raise `UnknownNameError` for a name of a map or a variable that is nowhere."""
    known = [{*obj.maps, *obj.globals} for obj in (before, after)]
    asked = [("ignore", name, known[0] | known[1], "in either object") for name in ignore]
    for old, new in renames.items():
        asked += [("renames", old, known[0], "before"), ("renames", new, known[1], "after")]
    for option, name, names, where in asked:
        if name not in names:
            raise UnknownNameError(
                f"{option}: there is no map or variable {name!r} {where}{near_matches(name, names)}"
            )


def _are_two(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def _programs(
    before: Object, after: Object, names: str | tuple[str, str] | None, *, driven: bool
) -> tuple[Program, Program]:
    if names is None:
        shared = [
            name
            for name, program in before.programs.items()
            if (program.type in TYPES if driven else program.kind.test_run in KINDS)
            and name in after.programs
        ]
        if len(shared) == 1:
            names = shared[0]
        elif shared:
            raise RunError(
                f"{before.path.name} and {after.path.name} have several programs that can be "
                f"test-run; say by program= which: {', '.join(shared)}"
            )
        else:
            for program in before.programs.values():
                check_driven(program) if driven else check_runs(program, else_by=STIMULUS)
            raise RunError(
                f"{before.path.name} and {after.path.name} have no program of the same name; say "
                "by program=(name before, name after) which are compared"
            )
    if isinstance(names, str):
        names = (names, names)
    if not _are_two(names):
        raise ValueTypeError(f"program is {names!r}; it is a name, or (name before, name after)")
    first, second = names
    pair = before.programs[first], after.programs[second]
    for program in pair:
        check_driven(program) if driven else check_runs(program, else_by=STIMULUS)
    if pair[0].type != pair[1].type:
        raise RunError(
            f"program {first!r} is of type {pair[0].type} and {second!r} of type {pair[1].type}: "
            "they do not get the same inputs"
        )
    return pair


def _difference(pair: Pair, done: Progress, seed: int) -> Exception:
    """Return the error that shows a difference by the smallest inputs that have it."""
    sequence = list(done.sequence)
    trouble = pair.replay(sequence)
    driver = pair.subjects[0].stimulus  # what it does anew is new to both
    unsteady = pair.unsteady(sequence) if driver is None else None
    names = [subject.program.name for subject in pair.subjects]
    if driver is not None and not trouble:
        return RunError(
            f"{names[0]!r} before and {names[1]!r} after differed once ({done.trouble}), and not "
            f"when the same inputs came again: {driver.name} does not do the "
            "same for the same input"
        )
    if unsteady is not None or not trouble:
        side = unsteady or 0
        return RunError(
            f"program {names[side]!r} ({SIDES[side]}) answers the same inputs differently each "
            f"time: it asks for more than its input says ({_outside(pair.subjects[side].program)})"
        )

    def differs(inputs: Sequence[bytes]) -> bool:
        nonlocal trouble
        found = pair.replay(inputs)
        if found and driver is not None and not pair.replay(inputs):
            return False  # what it does may come once
        trouble = found or trouble
        return bool(found)

    smallest = shrink(sequence, differs, pair.subjects[0].shape)
    lines = [f"{names[0]!r} before and {names[1]!r} after differ: {trouble}"]
    for number, data in enumerate(smallest, 1):
        which = f"input {number} of {len(smallest)}" if len(smallest) > 1 else "the input"
        lines.append(
            f"{which}:\n"
            + "\n".join(f"  {x}" for x in pair.subjects[0].shape.show(data).splitlines())
        )
    for name, subject in zip(SIDES, pair.subjects, strict=True):
        lines += [f"the way {name}:", *(f"  {line}" for line in path(subject, smallest))]
    lines.append(f"found after {done.inputs} inputs (seed {seed})")
    return DifferenceError("\n".join(lines))


def _outside(program: Program) -> str:
    asked = calls(program) - set(PINNED)
    return ", ".join(sorted(helper_name(number) for number in asked)) or "memory that it left unset"


def _notes(pair: Pair) -> list[str]:
    notes = []
    for side, subject in zip(SIDES, pair.subjects, strict=True):
        for name, kind in subject.state.unseen.items():
            notes.append(f"not compared: map {name!r} ({side}, {kind})")
    pinned = sorted({PINNED[n] for s in pair.subjects for n in calls(s.program) & set(PINNED)})
    if pinned:
        notes.append(f"set by the inputs: {', '.join(pinned)}")
    context = pair.subjects[0].shape.context
    notes += context.notes() if context is not None else []
    return notes


def _side(name: str, subject: Subject, done: Progress, hits: bytes) -> Side:
    program = subject.program
    with instruction_counter(subject) as count:
        exactly = count(done.corpus) if count is not None else None
    return Side(
        name,
        reach(subject, hits),
        program.verified_insns,
        program.verifier.total_states,
        program.verifier.stack_depth,
        program.prog_size_jited,
        sum(map_memory(each).kernel for each in subject.obj.maps.values()),
        run_length(subject, done.corpus),
        exactly,
    )
