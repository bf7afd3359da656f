"""Why an object was not loaded: the one place where libbpf's and the kernel's answers are read.

The verifier's log, where there is one, is the cause. What the kernel lacks is an
`UnavailableError` that names it; what the user can mend is a `LoadError` or a `VerifierError`.
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, LoadError, UnavailableError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.btf.enums import map_type_name
from pytest_bpf.kernel.features.privilege import privilege
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kinds.flags import ProgramFlags
from pytest_bpf.objects import elf, refusals
from pytest_bpf.objects.identity import program_type
from pytest_bpf.objects.maps.refusals import Sizes, explain_creation
from pytest_bpf.objects.programs import verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.objects.loading.handle import Handle

    WholeLog = Callable[[str, int], str]

VALUELESS = frozenset({"ringbuf", "user_ringbuf", "perf_event_array", "arena"})
"""Kinds of map that may have values of no bytes."""

UNPINNED = re.compile(r"failed to auto-pin at '(?P<path>.+)'")

DENIED = frozenset({errno.EPERM, errno.EACCES})


def explain(
    handle: Handle, error: OSError, messages: Sequence[str], whole_log: WholeLog
) -> BpfError:
    """Return what to raise for an object that libbpf or the kernel refused to load.

    ``whole_log`` loads one program again, for its log at a level.
    """
    code = error.errno or 0
    if older := newer_libbpf(handle):
        return older
    name = refusals.find_program_name(messages)
    log = handle.log(name) if name else ""
    if name and not verifier.has_path(log):
        log = verifier.with_reason(whole_log(name, 1), log)
    if name and verifier.reason(log):
        return _rejected(handle, name, code, log, whole_log)
    if code in DENIED and (missing := privilege()):
        return UnavailableError(f"{handle.path}: cannot be loaded: {missing}")
    if name:
        return _refused_program(handle, name, code)
    if failure := refusals.find_map_failure(messages):
        return _refused_map(handle, *failure, code, messages)
    if missing := refusals.missing_name(messages):
        return UnavailableError(f"{handle.path}: cannot be loaded here: {missing}")
    cause = refusals.first_cause(messages, libbpf.reason(code))
    return LoadError(f"{handle.path}: cannot be loaded: {cause}", code)


def _rejected(handle: Handle, name: str, code: int, log: str, whole_log: WholeLog) -> BpfError:
    """Return the error for a program that the verifier rejected."""
    missing = refusals.missing_in_log(log, lambda: elf.undefined_symbols(handle.content))
    if missing:
        place, _ = verifier.location(log, handle.section_starts[name], handle.source_lines())
        where = f"{place or handle.path}: program {name!r}"
        return UnavailableError(f"{where} cannot be loaded here: {missing}")
    return verifier.rejection(
        handle.path,
        name,
        handle.section_starts[name],
        code=code,
        log=log,
        source_lines=handle.source_lines(),
        whole_log=lambda: whole_log(name, 2),
    )


NEWER_PARTS = (
    ("a map in .struct_ops.link", ".struct_ops.link", "bpf_link__update_map", "1.2"),
    ("an arena", "arena", "bpf_token_create", "1.4"),
)
"""What an object may hold that older libbpfs open and cannot load: its section or kind of map, a
function that libbpf has since it can, and that version."""


def newer_libbpf(handle: Handle) -> UnavailableError | None:
    """Return what of an object this libbpf is too old for; None when there is nothing."""
    kinds = {map_type_name(libbpf.call("bpf_map__type", entry)) for entry in handle.maps.values()}
    names = kinds | elf.sections(handle.content).keys()
    for what, name, function, version in NEWER_PARTS:
        if name in names and not libbpf.has(function):
            return UnavailableError(
                f"{handle.path}: has {what}, which takes libbpf {version} or newer, and this is "
                f"{libbpf.version()}; give a newer one by --bpf-libbpf"
            )
    return None


def _refused_program(handle: Handle, name: str, code: int) -> BpfError:
    """Return the error for a program that the kernel refused before the verifier saw it."""
    section = handle.section(name)
    missing = refusals.missing_feature(section, program_type(handle.programs[name]))
    if missing:
        return UnavailableError(
            f"{handle.path}: program {name!r} ({section}) cannot be loaded here: {missing}"
        )
    if code in DENIED:  # `explain` has found all privilege that there is
        return UnavailableError(
            f"{handle.path}: program {name!r} ({section}) cannot be loaded here: the kernel "
            f"refuses it before verifying it ({libbpf.error_name(code)}) in spite of all "
            "capabilities; look for lockdown, a security module, or a kernel without that kind"
        )
    flags = libbpf.call("bpf_program__flags", handle.programs[name])
    unknown = flags & ~sum(ProgramFlags)
    why = f"the flags {unknown:#x}" if unknown else "that kind of program, or the target"
    return LoadError(
        f"{handle.path}: the kernel refuses program {name!r} ({section}) before verifying it: "
        f"{libbpf.reason(code)}; it may lack {why}",
        code,
    )


def _refused_map(
    handle: Handle, name: str, reason: str, code: int, messages: Sequence[str]
) -> BpfError:
    pointer = handle.maps[name]
    kind = map_type_name(libbpf.call("bpf_map__type", pointer))
    sizes = {
        size: libbpf.call(f"bpf_map__{size}", pointer)
        for size in ("max_entries", "key_size", "value_size")
    }
    flags = libbpf.call("bpf_map__map_flags", pointer)
    numbers = ", ".join(f"{size} {value}" for size, value in sizes.items())
    numbers += f", flags {flags:#x}" if flags else ""
    if any("couldn't reuse pinned map" in message for message in messages):
        return LoadError(
            f"{handle.path}: map {name!r} ({kind}, {numbers}) is pinned by name, and the map that "
            f"is pinned there differs; pass pins={{{name!r}: None}} for a map of its own",
            code,
        )
    if pin := next(filter(None, map(UNPINNED.search, messages)), None):
        return LoadError(
            f"{handle.path}: map {name!r} cannot be pinned at {pin['path']}: it must be a new name "
            "without dots in a folder of a bpf file system, as bpf.pins is one",
            code,
        )
    if kind in enums.MAP_TYPES and not features.map_type(kind):
        return UnavailableError(
            f"{handle.path}: map {name!r} cannot be created: this kernel has no {kind} maps"
        )
    needed = ("max_entries",) if kind in VALUELESS else ("max_entries", "value_size")
    zero = next((size for size in needed if not sizes[size]), None)
    declared = Sizes(**sizes, flags=flags)
    reason = explain_creation(code, kind, declared) or reason
    hint = f"; say {zero}={{{name!r}: ...}}" if zero and zero in reason else ""
    return LoadError(
        f"{handle.path}: map {name!r} ({kind}, {numbers}) cannot be created: {reason}{hint}", code
    )
