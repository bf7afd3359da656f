"""Which line of C each instruction of a program was made of."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.objects.programs.origins import source_lines

if TYPE_CHECKING:
    from pytest_bpf.kernel.programs.flow import Flow
    from pytest_bpf.objects import Program

Line = tuple[str, int]
"""A file's path and a number."""


def instruction_lines(program: Program, code: Flow) -> dict[int, Line]:
    """Return the line of each instruction that the object tells one of.

    Raises `UnavailableError` for an object without line information.
    """
    known = source_lines(program.content, program.name, code)
    if not known:
        raise UnavailableError(
            f"program {program.name!r} has no line information; compile it with -g"
        )
    lines: dict[int, Line] = {}
    line: Line = ("?", 0)
    for at in range(len(code.instructions)):
        if at in known:
            line = (os.path.normpath(known[at].file), known[at].line)
        lines[at] = line
    return lines
