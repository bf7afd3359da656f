"""The kinds of programs: one row for each, and the look-ups that the other modules use.

To add a kind, add a row to `network_programs`, `cgroup_programs` or `tracing_programs`, and a file
in ``objects/link/ways/`` that attaches it; docs/how-to/add-a-kind.md goes through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pytest_bpf.kinds import cgroup_programs, network_programs, tracing_programs
from pytest_bpf.kinds.program_kind import ProgramKind

_ROWS = (*network_programs.ROWS, *tracing_programs.ROWS, *cgroup_programs.ROWS)

PROGRAMS = {row.name: row for row in _ROWS}
"""The rows by name."""

SECTIONS = {prefix: row for row in _ROWS for prefix in row.sections}
"""The row of each text that ``SEC()`` may begin with."""


@dataclass(frozen=True)
class Section:
    """What the text in ``SEC()`` says: ``kind``, ``prefix``, ``target``, and the flag of ``.s``."""

    kind: ProgramKind
    prefix: str
    target: str
    sleepable: bool = False

    @property
    def attach_type(self) -> int:
        """The expected attach type, 0 where the kind needs none."""
        return self.kind.sections[self.prefix]


@cache
def parse_section(text: str) -> Section | None:
    """Return what the text in ``SEC()`` says; None for one that no kind has.

    >>> parse_section("fentry.s/vfs_read").target
    'vfs_read'
    """
    head, slash, rest = text.lstrip("?").partition("/")
    sleepable = head.endswith(".s")
    parts = (head.removesuffix(".s").rstrip("+") + slash + rest).split("/")
    for count in range(len(parts), 0, -1):
        prefix = "/".join(parts[:count])
        if prefix in SECTIONS:
            return Section(SECTIONS[prefix], prefix, "/".join(parts[count:]), sleepable)
    return None


def program_kind(program_type: str, section: str = "", attach_type: int = 0) -> ProgramKind:
    """Return the row of a loaded program, by its section, or else its type and attach type.

    ``program_type`` is libbpf's name. A type that no row has gives a row without a way to attach.
    """
    parsed = parse_section(section)
    if parsed and parsed.kind.type == program_type:
        return parsed.kind
    rows = [row for row in _ROWS if row.type == program_type]
    by_attach_type = [row for row in rows if attach_type and attach_type in row.sections.values()]
    unknown = ProgramKind(program_type, program_type)
    return next(iter((*by_attach_type, *rows)), unknown)


def names_target(program_type: str, section: str) -> bool:
    """Say whether a loaded program knows what it is attached to."""
    parsed = parse_section(section)
    kind = program_kind(program_type, section)
    if kind.way == "tracing":  # the kernel loads none without its target
        return True
    if kind.target or not kind.way or parsed is None:
        return False
    return bool(parsed.target)


def pass_value(program_type: str, section: str = "") -> int:
    """Return what a program returns to let everything pass and change nothing."""
    return program_kind(program_type, section).passes


def types_with(attribute: str, value: object = True) -> frozenset[str]:
    """Return libbpf's names of the program types with a row whose ``attribute`` is ``value``."""
    return frozenset(row.type for row in _ROWS if getattr(row, attribute) == value)
