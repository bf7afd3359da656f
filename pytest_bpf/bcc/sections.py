"""What kind of program a function of a BCC source is, in the words of ELF sections."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError, UnknownNameError, near_matches
from pytest_bpf.kinds.programs import PROGRAMS, SECTIONS, parse_section

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIXES = {
    "kprobe__": "kprobe/",
    "kretprobe__": "kretprobe/",
    "raw_tracepoint__": "raw_tracepoint/",
    "kfunc__": "fentry/",
    "kretfunc__": "fexit/",
    "lsm__": "lsm/",
}
"""How names say what a function is attached to."""

CONTEXTS = {
    row.context: next(iter(row.sections))
    for row in reversed(PROGRAMS.values())
    if row.context and len(set(row.sections.values())) == 1
}
"""What the type of the first argument says, where it leaves one place to attach to."""

TRACEPOINT = re.compile(r"tracepoint__(?P<category>[a-z0-9]+(?:_[a-z0-9]+)*?)__(?P<event>\w+)")


def sections(
    functions: Iterable[str], text: str, given: Mapping[str, str], where: str
) -> dict[str, str]:
    """Return the section of each function: as it is given, or as its name or argument says.

    Raises `UnknownNameError` for one that is given and not there, `LoadError` for a section that
    says no type.
    """
    names = list(functions)
    for name, section in given.items():
        if name not in names:
            raise UnknownNameError(f"{where} has no program {name!r}{near_matches(name, names)}")
        if parse_section(section) is None:
            raise LoadError(
                f"{where}: program {name!r}: there is no section {section!r} for BCC sources"
                f"{near_matches(section.partition('/')[0], SECTIONS)}"
            )
    return {name: given.get(name) or _section_of(name, text) for name in names}


def program_type(section: str) -> str:
    """Return libbpf's name of the program type that a section says."""
    parsed = parse_section(section)
    assert parsed is not None, section
    return parsed.kind.type


def _section_of(name: str, text: str) -> str:
    if match := TRACEPOINT.fullmatch(name):
        return f"tracepoint/{match['category']}/{match['event']}"
    for prefix, section in PREFIXES.items():
        if name.startswith(prefix):
            return section + name.removeprefix(prefix).removeprefix("vmlinux__")
    argument = re.search(rf"\b{re.escape(name)}\s*\(\s*(?:const\s+)?struct\s+(\w+)\s*\*", text)
    if argument and (match := TRACEPOINT.fullmatch(argument[1])):
        return f"tracepoint/{match['category']}/{match['event']}"
    return CONTEXTS.get(argument[1], "kprobe") if argument else "kprobe"
