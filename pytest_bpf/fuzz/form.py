"""Which inputs programs get: what they ask for, and what they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.errors import RunError, UnknownNameError, ValueTypeError
from pytest_bpf.fuzz.contexts import GIVEN, choose_context
from pytest_bpf.fuzz.hooked import SIZE
from pytest_bpf.fuzz.inputs import CLOCKS, COMM, PINNED, STIMULUS, form
from pytest_bpf.fuzz.state import State
from pytest_bpf.fuzz.subject import calls, check_runs, helpers, needs_name
from pytest_bpf.kernel.programs.context_use import context_use
from pytest_bpf.kernel.programs.flow import flow
from pytest_bpf.kernel.programs.runner import ContextRunner
from pytest_bpf.objects.programs.twin import instructions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.fuzz.contexts import ContextChoice
    from pytest_bpf.fuzz.inputs import Form
    from pytest_bpf.objects import Object, Program

SHORTEST = {"cgroup_skb": 34, "xdp": 14}
"""The shortest packets that the kernel takes for a type of program: with its IP header for some."""

ETHERNET = 14
LONGEST = 3400
ARGUMENTS = 12
"""The most words that a raw tracepoint has."""

SET_TSTAMP = 192
"""``bpf_skb_set_tstamp``, which changes a context, too."""

ROOM = 1 << 18
"""Bytes of variables that may be part of an input."""


def choose_form(
    objects: Sequence[Object],
    programs: Sequence[Program],
    inputs: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    *,
    driven: bool = False,
) -> Form:
    """Return the form of the inputs that all programs can be given.

    ``inputs`` are the global variables that are part of it; a program that takes nothing else gets
    all of them. With ``driven`` a stimulus gets the rest of it. Raises `RunError` for programs
    without any input, and `UnknownNameError`.
    """
    kind = STIMULUS if driven else check_runs(programs[0])
    asked = set().union(*(calls(program) for program in programs))
    parts: dict[str, int] = {}
    if asked & set(CLOCKS):
        parts["clock"] = 8
    parts |= {name: 8 for helper, name in PINNED.items() if helper in asked - set(CLOCKS)}
    if needs_name(programs):
        parts["comm"] = COMM
    size = (SHORTEST.get(programs[0].type, ETHERNET), LONGEST)
    if driven:
        size = (SIZE, SIZE)
    elif kind != "packet":
        bytes_ = max(
            _context_size(obj, program) for obj, program in zip(objects, programs, strict=True)
        )
        size = (bytes_, bytes_)
    sizes = _variables(objects, leave_out)
    if inputs:
        for name in inputs:
            if name not in sizes:
                raise UnknownNameError(f"no global variable {name!r} is in every program")
            parts[name] = sizes[name]
    elif kind != "packet" and not size[1]:
        parts |= sizes
    if sum(parts.values()) > ROOM:
        raise ValueTypeError(
            f"the variables are {sum(parts.values())} bytes, more than {ROOM} in one input; say by "
            "inputs= which of them matter"
        )
    if not parts and not size[1]:
        raise RunError(
            f"program {programs[0].name!r} takes no input: neither a packet nor a context nor "
            "global variables"
        )
    return form(kind, size, parts, _context(programs) if kind == "packet" else None)


def _context(programs: Sequence[Program]) -> ContextChoice | None:
    struct = programs[0].kind.context
    if struct not in GIVEN:
        return None
    flows = [flow(instructions(program)) for program in programs]
    changes = any(SET_TSTAMP in helpers(one) for one in flows)
    uses = [context_use(one) for one in flows]
    return choose_context(programs[0].type, struct, uses, changes=changes)


def _variables(objects: Sequence[Object], leave_out: Sequence[str]) -> dict[str, int]:
    """Return the sizes of the variables that all objects have, by name."""
    sizes = []
    for obj in objects:
        state = State(obj, leave_out, events=False)
        sizes.append({name: len(memory) for name, memory in state.memory.items()})
        state.close()
    return {
        name: size
        for name, size in sizes[0].items()
        if all(other.get(name) == size for other in sizes[1:])
    }


def _context_size(obj: Object, program: Program) -> int:
    """Return the bytes of the smallest context that the kernel takes for a program.

    To find it, the program is run once; what it changes is put back.
    """
    declared = program.context_type
    if program.kind.test_run == "context" and declared is not None and declared.size:
        return int(declared.size)
    state = State(obj, events=False)
    before = state.read()
    try:
        for words in range(ARGUMENTS + 1):
            if ContextRunner(8 * words).run(program.fd, bytes(8 * words)) >= 0:
                return 8 * words
    finally:
        state.write(before)
        state.close()
    raise RunError(f"program {program.name!r}: the kernel refuses every context for a test run")
