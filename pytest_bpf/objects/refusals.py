"""Why the kernel refused a program, a map or an element, as one sentence."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError, near_matches
from pytest_bpf.kernel import btf, features
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kinds.programs import program_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MAP = re.compile(r"map '(?P<name>.+?)': failed to create: (?P<why>.+?)\(-\d+\)")
PROGRAM = re.compile(r"prog '(?P<name>.+?)': BPF program load failed")
_NO_FIELD = re.compile(r"map '.+?': unknown field '(?P<name>.+?)'")
MAP_FIELDS = (
    *("type", "max_entries", "map_flags", "map_extra", "numa_node", "pinning", "values"),
    *("key", "key_size", "value", "value_size"),
)
"""What libbpf takes in the declaration of a map."""

_NOISE = re.compile(
    r"failed to load object|BTF loading error|Error loading \.BTF|-- BEGIN BTF|Retrying without BTF"
    r"|: failed to load: -|failed to prepare load attributes|\.eh_frame"
)


def find_program_name(messages: Sequence[str]) -> str | None:
    """Return the name of the program that the kernel refused, None when it was not a program."""
    match = next((match for line in messages if (match := PROGRAM.search(line))), None)
    return match["name"] if match else None


def find_map_failure(messages: Sequence[str]) -> tuple[str, str] | None:
    """Return the name of the map that could not be created and the kernel's reason, or None."""
    match = next((match for line in messages if (match := MAP.search(line))), None)
    return (match["name"], match["why"]) if match else None


def first_cause(messages: Sequence[str], default: str) -> str:
    """Return the message that tells most: the first one that is neither noise nor a consequence.

    >>> first_cause(["extern 'X' (strong): not resolved", "failed to load object 'a'"], "EINVAL")
    "extern 'X' (strong): not resolved"
    """
    causes = [line for line in messages if not _NOISE.search(line)]
    return _in_plain_words((causes or [default])[0])


def _in_plain_words(cause: str) -> str:
    """Add to libbpf's message what it means, where that is known."""
    if match := _NO_FIELD.search(cause):
        return f"{cause.rstrip('.')}{near_matches(match['name'], MAP_FIELDS)}"
    if match := _NO_TARGET.search(cause):
        name = match["name"]
        close = _close(name)
        near = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        program = match["program"]
        return f"program {program!r} attaches to {name!r}, which this kernel does not have{near}"
    if match := _UNDECLARED.search(cause):
        from pytest_bpf.compile.hints import hint  # noqa: PLC0415 - only of a refusal

        name = match["name"]
        means = hint(f"use of undeclared identifier '{name}'", "") or (
            "; load the source that defines it along with this one, bpf.load([..., ...]), or "
            "declare a function of the kernel with __ksym"
        )
        return f"{name!r} is used, and nothing in the object defines it{means}"
    return next((cause + more for pattern, more in _REMEDIES if pattern.search(cause)), cause)


def _close(name: str) -> list[str]:
    """Return names near to this one of what programs attach to."""
    likely = [other for other in _kernel_functions() if other[:1] == name[:1]]
    return difflib.get_close_matches(name, likely, n=3, cutoff=0.75)


_REMEDIES = (
    (re.compile(r"program '.+' is static and not supported"), "; leave out the word static"),
    (
        re.compile(r"legacy map definitions in 'maps'"),
        '; declare it in SEC(".maps"), with __uint(type, ...) and __type(key, ...)',
    ),
    (
        re.compile(r"no BTF-based attach target is specified"),
        '; write it into the section, as in SEC("tp_btf/sched_switch"), or give it by attach_to=',
    ),
    (
        re.compile(r"attr '\w+': expected PTR, got enum64"),
        "; __ulong() in a map takes libbpf 1.4 or newer: give one by --bpf-libbpf",
    ),
)
"""What mends a refusal of libbpf's, by its message."""

_NO_TARGET = re.compile(
    r"prog '(?P<program>.+?)': failed to find kernel BTF type ID of '(?P<name>.+?)'"
)
_UNDECLARED = re.compile(r"failed to find BTF for extern '(?P<name>.+?)'")
_HOOK_PREFIX = re.compile(r"^(?:btf_trace_|bpf_lsm_|bpf_iter_)")


def _kernel_functions() -> list[str]:
    """Return what programs attach to by BTF: functions, tracepoints, LSM hooks, iterators."""
    try:
        return [_HOOK_PREFIX.sub("", name) for name in btf.vmlinux().attachable()]
    except UnavailableError:
        return []


def missing_name(messages: Sequence[str]) -> str | None:
    """Return which name that an object refers to is not in this kernel; None when all are.

    >>> missing_name(["extern (func ksym) 'bpf_nope': not found in kernel or module BTFs"])
    "this kernel has no kfunc 'bpf_nope'"
    """
    for pattern, kind in _EXTERNS:
        if match := next((match for line in messages if (match := pattern.search(line))), None):
            return f"this kernel has no {kind} {match['name']!r}"
    return None


_EXTERNS = (
    (re.compile(r"extern \(func ksym\) '(?P<name>.+?)': not found in kernel"), "kfunc"),
    (re.compile(r"extern \(var ksym\) '(?P<name>.+?)': not found in kernel"), "variable"),
    (
        re.compile(r"extern '(?P<name>CONFIG_\w+)' \(strong\): not resolved"),
        "configuration option",
    ),
)
"""What libbpf says of an extern that it does not find, and what kind of thing that is."""


def missing_target(messages: Sequence[str]) -> str | None:
    """Return what an object attaches to or implements that this kernel does not have.

    None when all is there, and when the name is near to one that the kernel has: then it is
    misspelt.
    """
    for line in messages:
        if match := _NO_TARGET.search(line):
            name = match["name"]
            return None if _close(name) else f"this kernel has no {name!r} to attach to"
        if match := _STRUCT_OPS.search(line):
            return f"this kernel has no struct_ops of type {match['name']!r}"
    return None


_STRUCT_OPS = re.compile(r"struct bpf_struct_ops_(?P<name>\w+) is not found in kernel BTF")


def missing_in_log(log: str, undefined_symbols: Callable[[], Iterable[str]]) -> str | None:
    """Return which name that a program uses is not in this kernel, by the end of its log.

    libbpf lets a program without it pass to the verifier, which may never come to that place.
    ``undefined_symbols`` gives the names that the object leaves to the kernel.
    """
    end = log[-4096:]
    if match := _UNRESOLVED.search(end):
        name = re.sub(r"___\w+", "", match["name"]).strip()
        return f"this kernel's BTF has no {match['kind']} {name}"
    if match := _UNKNOWN_HELPER.search(end):
        return f"this kernel has no helper with the number {match[1]}"
    if _MISSING_KFUNC.search(end):
        names = [name for name in undefined_symbols() if not features.kfunc(name)]
        if names:
            return f"it calls a kfunc that this kernel does not have: {', '.join(names)}"
    return None


_UNRESOLVED = re.compile(
    r"failed to resolve CO-RE relocation <\w+> \[\d+\] (?P<kind>struct|union|enum|typedef|enum64) "
    r"(?P<name>[^\s(]+)"
)
_UNKNOWN_HELPER = re.compile(r"invalid func unknown#(\d{1,4})\b")
_MISSING_KFUNC = re.compile(
    r"invalid kernel function call not eliminated|<missing kfunc>|\(85\) call #0\s"
    r"|invalid func unknown#200\d{7}"
)


def missing_feature(section: str, program_type: str) -> str | None:
    """Return what the kernel lacks for such a program; None when others of its kind would do.

    It is asked after a refusal only: the kernel is probed for it.
    """
    kind = program_kind(program_type, section)
    name = kind.probe or kind.name
    if name in features.ATTACH_KINDS:
        probe = features.attach(name)
    elif program_type in enums.PROGRAM_TYPES:
        probe, name = features.program_type(program_type), program_type
    else:
        return None
    return None if probe else probe.reason or f"this kernel has no {name} programs"
