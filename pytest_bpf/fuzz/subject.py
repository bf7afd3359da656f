"""One program, ready to be run many times: its builds with counters, its inputs, its answers."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_bpf.errors import RunError
from pytest_bpf.fuzz.contexts import META_SIZE
from pytest_bpf.fuzz.inputs import CLOCK_BITS, CLOCKS, COMM, COMM_HELPER, PINNED
from pytest_bpf.fuzz.state import State
from pytest_bpf.kernel.programs.flow import flow, is_helper_call
from pytest_bpf.kernel.programs.runner import REFUSED, ContextRunner, PacketRunner
from pytest_bpf.objects.programs.origins import source_lines
from pytest_bpf.objects.programs.twin import Twin, instructions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_bpf.fuzz.hooked import Stimulus
    from pytest_bpf.fuzz.inputs import Form, Part
    from pytest_bpf.fuzz.state import Snapshot
    from pytest_bpf.kernel.programs.counters import Build, Mode
    from pytest_bpf.kernel.programs.flow import Flow
    from pytest_bpf.kernel.programs.runner import Answer
    from pytest_bpf.objects import Object, Program
    from pytest_bpf.objects.elf import SourceLine

START = 1 << 40
"""What clocks show before the first input, in nanoseconds."""

DRIVEN: Answer = (0, b"", b"")
"""The answer of a program that is attached: what it returns goes to the kernel."""

KINDS = frozenset({"packet", "arguments", "context"})
"""How `BPF_PROG_RUN` may call a program that is run here, as in the table of kinds."""


def helpers(program: Flow) -> set[int]:
    """Return the helpers that a program calls, by number."""
    return {
        insn.value
        for at, insn in enumerate(program.instructions)
        if at not in program.second and is_helper_call(insn)
    }


def calls(program: Program) -> set[int]:
    """Return the helpers that a loaded program calls."""
    return helpers(flow(instructions(program)))


def check_runs(program: Program, *, else_by: str = "") -> str:
    """Return how a program is run; `RunError` for one that cannot be test-run with an input.

    The error says what else can be done: ``else_by``, if there is something.
    """
    mode = program.kind.test_run
    if mode not in KINDS:
        raise RunError(
            f"program {program.name!r} ({program.type}) cannot be test-run with inputs; {else_by}"
            'put what it does into a function, and call that from a SEC("raw_tp") program, too'
        )
    return mode


class Subject:
    """A program of a loaded object; `run` gives it an input, and `run_for_operands`, too.

    ``hit`` and ``operands`` are its two builds, ``state`` is what its object leaves behind.
    """

    def __init__(
        self,
        obj: Object,
        program: Program,
        shape: Form,
        leave_out: Iterable[str],
        stimulus: Stimulus | None = None,
    ) -> None:
        self.obj, self.program, self.shape = obj, program, shape
        self.clock = START
        self.stimulus = stimulus
        with ExitStack() as failure:
            self._end = failure
            self._pins = sorted(calls(program) & set(PINNED))
            self.hit = failure.enter_context(self.twin("hit"))
            self.operands = failure.enter_context(self.twin("operands"))
            self.state = State(obj, leave_out)
            failure.callback(self.state.close)
            self.setters = [self._setter(part) for part in shape.own_parts if part.name != "comm"]
            self.run = self.runner_of(self.hit)
            self.run_for_operands = self.runner_of(self.operands)
            self.state.read()  # takes the events that were there before
            self.start = self.state.read()
            self._end = failure.pop_all()

    @property
    def flow(self) -> Flow:
        """The program's own control flow."""
        return self.hit.build.flow

    def lines(self) -> dict[int, SourceLine]:
        """Return the source lines of its instructions."""
        return source_lines(self.program.content, self.program.name, self.flow)

    def twin(self, mode: Mode) -> Twin:
        """Return another build, with the same pins; close it."""
        gate = self.stimulus.next_gate() if self.stimulus is not None else None
        return Twin(self.program, mode, self._pins, gate)

    def reset(self, now: Snapshot | None = None) -> None:
        """Put the state back to what it was at first; ``now`` is what it is, if that is known."""
        self.state.write(self.start, now)
        self.clock = START

    def close(self) -> None:
        """Unload the builds; the program and its object stay."""
        self._end.close()

    def _setter(self, part: Part) -> Callable[[bytes, Twin], None]:
        """Return what puts one part of an input in its place."""
        low, high = part.start, part.start + part.size
        if part.name in self.state.memory:
            memory = self.state.memory[part.name]

            def put(data: bytes, _twin: Twin) -> None:
                memory[:] = data[low:high]

            return put
        clock = part.name == "clock"
        answered = [
            at
            for at, helper in enumerate(self._pins)
            if (helper in CLOCKS if clock else PINNED[helper] == part.name)
        ]

        def pin(data: bytes, twin: Twin) -> None:
            number = int.from_bytes(data[low:high], "little")
            if clock:
                self.clock += number % 2**CLOCK_BITS
                number = self.clock
            pins = twin.pins
            for at in answered:
                pins[at] = number

        return pin

    def runner_of(self, twin: Twin) -> Callable[[bytes], Answer]:
        """Return what gives an input to a build."""
        if self.stimulus is not None:
            self._end.callback(self.stimulus.attach(twin.program).detach)
            of_twin = [(put, twin) for put in self.setters]
            return _driver(self.stimulus, [twin], of_twin, self.shape.fixed)
        fd, fixed, setters = twin.fd, self.shape.fixed, self.setters
        if self.shape.kind == "packet":
            run = _packet_runs(self.shape, [fd])

            def give_packet(data: bytes) -> Answer:
                for put in setters:
                    put(data, twin)
                (answer,) = run(data)
                return answer

            return give_packet
        other = ContextRunner(self.shape.least)

        def give(data: bytes) -> Answer:
            for put in setters:
                put(data, twin)
            retval = other.run(fd, data[fixed:] if fixed else data)
            return (retval, other.context(), b"") if retval >= 0 else REFUSED

        return give


def _driver(
    stimulus: Stimulus,
    twins: Sequence[Twin],
    setters: Sequence[tuple[Callable[[bytes, Twin], None], Twin]],
    fixed: int,
) -> Callable[[bytes], Answer]:
    """Return what gives an input to a stimulus, and so to builds that are attached."""

    def drive(data: bytes) -> Answer:
        for put, twin in setters:
            put(data, twin)
        with stimulus.open(twins):
            stimulus.run(data[fixed:])
        return DRIVEN

    return drive


def together(
    subjects: Sequence[Subject], twins: Sequence[Twin] | None = None
) -> Callable[[bytes], Sequence[Answer]]:
    """Return what gives an input to a build of each subject, by default the ``hit`` one."""
    builds = [subject.hit for subject in subjects] if twins is None else twins
    shape, stimulus = subjects[0].shape, subjects[0].stimulus
    setters = [
        (put, twin)
        for subject, twin in zip(subjects, builds, strict=True)
        for put in subject.setters
    ]
    if stimulus is not None:
        drive = _driver(stimulus, builds, setters, shape.fixed)
        return lambda data: [drive(data)] * len(builds)
    if shape.kind != "packet":
        pairs = zip(subjects, builds, strict=True)
        runs = [subject.runner_of(twin) for subject, twin in pairs]
        return lambda data: [run(data) for run in runs]
    at_once = _packet_runs(shape, [twin.fd for twin in builds])
    if not setters:
        return at_once

    def give(data: bytes) -> Sequence[Answer]:
        for put, twin in setters:
            put(data, twin)
        return at_once(data)

    return give


def _packet_runs(shape: Form, fds: Sequence[int]) -> Callable[[bytes], Sequence[Answer]]:
    """Return what runs programs with the packet and the context of an input."""
    fixed, context = shape.fixed, shape.context
    if context is not None:
        given = context.given
        run = PacketRunner(fds, shape.most + META_SIZE, context.size).run_with_context
        return lambda data: run(*given(data))
    plain = PacketRunner(fds, shape.most).run
    return (lambda data: plain(data[fixed:])) if fixed else plain


def name_setter(shape: Form) -> Callable[[bytes], None] | None:
    """Return what gives this thread the name that an input says; None where inputs have none."""
    part = next((part for part in shape.parts if part.name == "comm"), None)
    if part is None:
        return None
    set_name = ctypes.CDLL(None).prctl
    option, low, high = ctypes.c_int(15), part.start, part.start + COMM - 1

    def put(data: bytes) -> None:
        set_name(option, data[low:high])  # PR_SET_NAME

    return put


def needs_name(programs: Iterable[Program]) -> bool:
    """Tell whether any program asks for the name of the thread that runs it."""
    return any(COMM_HELPER in calls(program) for program in programs)


def helper_name(number: int) -> str:
    """Return a helper's name."""
    from pytest_bpf.kernel.btf.enums import kernel_enum  # noqa: PLC0415 (for a message)

    names = {value: name for name, value in kernel_enum("enum bpf_func_id", "BPF_FUNC_").items()}
    return f"bpf_{names[number]}" if number in names else f"helper {number}"


def blocks_hit(made: Build, counters: Iterable[int]) -> set[int]:
    """Return the starts of the blocks that were entered."""
    return {at for at, hit in zip(made.flow.blocks, counters, strict=False) if hit}
