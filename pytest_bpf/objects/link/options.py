"""How a program is attached, beyond its target: one set of options for all kinds."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict

from pytest_bpf.errors import AttachError, near_matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.kinds.program_kind import ProgramKind
    from pytest_bpf.objects.link.targets import Attachable


class AttachOptions(TypedDict, total=False):
    """The keyword arguments of `Program.attach`; its docstring says which kind takes which."""

    direction: str | None
    mode: str | None
    binary: str | os.PathLike[str] | None
    function: str | None
    offset: int
    provider: str | None
    pid: int
    tid: int
    cpu: int
    frequency: int
    cookie: int
    before: Any
    after: Any
    first: bool
    last: bool
    revision: int
    replace: Any
    preorder: bool
    priority: int | None
    handle: int
    chain: int
    hook: str | None
    family: str
    defrag: bool
    order: str | None
    netns: Any


@dataclass(frozen=True)
class Options:
    """The same as values, with their defaults; each kind of program uses its own of these."""

    direction: str | None = None
    mode: str | None = None
    binary: str | os.PathLike[str] | None = None
    function: str | None = None
    offset: int = 0
    provider: str | None = None
    pid: int = -1
    tid: int = -1
    cpu: int = -1
    frequency: int = 1000
    cookie: int = 0
    before: Any = None
    after: Any = None
    first: bool = False
    last: bool = False
    revision: int = 0
    replace: Any = None
    preorder: bool = False
    priority: int | None = None
    handle: int = 0
    chain: int = 0
    hook: str | None = None
    family: str = "ipv4"
    defrag: bool = False
    order: str | None = None
    netns: Any = None


_NAMES = tuple(option.name for option in fields(Options))
_RANGES = {
    "offset": (0, 2**63 - 1),
    "pid": (-1, 2**31 - 1),
    "tid": (-1, 2**31 - 1),
    "cpu": (-1, 2**31 - 1),
    "frequency": (1, 2**31 - 1),
    "cookie": (0, 2**64 - 1),
    "revision": (0, 2**64 - 1),
    "priority": (-(2**31), 2**31 - 1),
    "handle": (0, 2**32 - 1),
    "chain": (0, 2**28 - 1),
}
"""The integers, from the smallest to the largest that each may be."""

_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    **dict.fromkeys(("direction", "mode", "function", "provider"), ("text", (str,))),
    **dict.fromkeys(("hook", "family", "order"), ("text", (str,))),
    **dict.fromkeys(("first", "last", "preorder", "defrag"), ("True or False", (bool,))),
    "binary": ("a path", (str, os.PathLike)),
}


def read_options(program: Attachable, kind: ProgramKind, given: Mapping[str, Any]) -> Options:
    """Return the options given; raise `AttachError` for one that the kind does not take."""
    for name, value in given.items():
        if name not in _NAMES:
            raise AttachError(
                f"program {program.name!r}: attach() has no option {name}="
                f"{near_matches(name, _NAMES)}"
            )
        _check_value(program, name, value)
    options = Options(**given)
    for name in _NAMES:
        if name not in kind.options and getattr(options, name) != getattr(_DEFAULTS, name):
            names = ", ".join(f"{option}=" for option in kind.options) or "no options"
            raise AttachError(
                f"program {program.name!r} ({program.type}) takes {names}, not {name}="
            )
    return options


_DEFAULTS = Options()


def _check_value(program: Attachable, name: str, value: Any) -> None:
    """Raise `AttachError` for a value of the wrong type, or out of range."""
    if value is None and getattr(_DEFAULTS, name) is None:
        return
    if name in _RANGES:
        low, high = _RANGES[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise AttachError(f"program {program.name!r}: {name}= takes an integer, not {value!r}")
        if not low <= value <= high:
            raise AttachError(
                f"program {program.name!r}: {name}={value} is out of range, {low} to {high}"
            )
    noun, types = _TYPES.get(name, ("", (object,)))
    if not isinstance(value, types):
        raise AttachError(f"program {program.name!r}: {name}= takes {noun}, not {value!r}")


def direction(program: Attachable, options: Options) -> str:
    """Return "ingress" or "egress", as the option or else the section says."""
    parsed = next((d for d in ("ingress", "egress") if d in program.section), None)
    way = options.direction or parsed
    if options.direction not in {None, "ingress", "egress"}:
        raise AttachError(
            f"program {program.name!r} (tc): direction={options.direction!r} is none of 'ingress', "
            "'egress'"
        )
    if way not in {"ingress", "egress"}:
        raise AttachError(
            f"program {program.name!r} (tc): its section {program.section!r} does not say where; "
            "pass direction='ingress' or direction='egress'"
        )
    return way
