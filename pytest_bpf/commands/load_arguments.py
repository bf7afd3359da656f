"""What ``bpf.load`` has to be told so that an object loads on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kinds.maps import map_kind
from pytest_bpf.kinds.programs import parse_section

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_bpf.objects.loading.open_object import OpenObject

ENTRIES = {"positive": 10240, "pages": 1 << 18}
"""What ``max_entries`` becomes where the agent sets it, by what the kind of map asks for."""

STACK_BYTES = 8 * 127
"""The value of a map of stacks where the source leaves it to the agent: 127 addresses."""

COUNTED_BY_LIBBPF = {"perf_event_array"}
"""Kinds of map whose ``max_entries`` libbpf sets when it is 0."""

WORD = re.compile(r"[a-z0-9]+|$")

PROGRAM = re.compile(r"program '([^']+)'")


@dataclass(frozen=True)
class LoadArguments:
    """What the source leaves open: types of programs, sizes of maps; and which programs to skip.

    ``skip`` has the reason of each.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    max_entries: Mapping[str, int] = field(default_factory=dict)
    value_size: Mapping[str, int] = field(default_factory=dict)
    skip: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The same as keyword arguments of a call."""
        mappings = (
            ("types", self.types),
            ("max_entries", self.max_entries),
            ("value_size", self.value_size),
        )
        words = [f"{name}={_dict(values)}" for name, values in mappings if values]
        if self.skip:
            words.append(f"skip=[{', '.join(map(_quoted, self.skip))}]")
        return words


def _dict(values: Mapping[str, object]) -> str:
    pairs = (
        f"{_quoted(name)}: {_quoted(value) if isinstance(value, str) else value}"
        for name, value in values.items()
    )
    return f"{{{', '.join(pairs)}}}"


def _quoted(name: str) -> str:
    return f'"{name}"'


def find_load_arguments(obj: OpenObject, load: Callable[[LoadArguments], None]) -> LoadArguments:
    """Return what an object has to be loaded with, found by loading it here.

    Programs of ``obj`` whose section says no type get theirs. ``load`` loads the object once. A
    program that this kernel refuses is skipped, so that the others can be tested. Where the
    machine lacks what it takes, such as privilege, nothing is skipped. Raises what the load raised
    when no program is left, or none is to blame.
    """
    types = _types(obj)
    entries, sizes = _open_sizes(obj)
    skip: dict[str, str] = {}
    while True:
        arguments = LoadArguments(types, entries, sizes, dict(skip))
        try:
            load(arguments)
        except UnavailableError:
            return arguments
        except BpfError as error:
            culprit = _culprit(error, [name for name in obj.programs if name not in skip])
            if not culprit or len(skip) + 1 == len(obj.programs):
                raise
            skip[culprit] = str(error).splitlines()[0]
        else:
            return arguments


def _culprit(error: BpfError, programs: Sequence[str]) -> str:
    name = getattr(error, "program", "")
    if not name:
        match = PROGRAM.search(str(error))
        name = match[1] if match else ""
    return name if name in programs else ""


def _types(obj: OpenObject) -> dict[str, str]:
    """Set and return the types of programs in sections such as ``xdp_router`` and ``tc-mark``."""
    types = {}
    for name, program in obj.programs.items():
        section = parse_section(WORD.findall(program.section)[0])
        if program.type == "unspec" and section and section.kind.target == "an interface":
            program.type = types[name] = section.prefix
    return types


def _open_sizes(obj: OpenObject) -> tuple[dict[str, int], dict[str, int]]:
    """Return ``max_entries`` and ``value_size`` of the maps that are declared without."""
    entries, sizes = {}, {}
    for name, entry in obj.maps.items():
        kind = map_kind(entry.type)
        if not entry.max_entries and kind.name not in COUNTED_BY_LIBBPF and kind.entries in ENTRIES:
            entries[name] = ENTRIES[kind.entries]
        if not entry.value_size and kind.name == "stack_trace":
            sizes[name] = STACK_BYTES
    return entries, sizes
