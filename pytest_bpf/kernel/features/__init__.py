"""What the running kernel can do, each answer by trying it, once a process.

A `Probe` is true when the feature is there; otherwise its ``reason`` says why not. A process that
may not try says what privilege it needs, never that the kernel lacks the feature.
"""

from __future__ import annotations

import errno as errnos
import os
import re
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from pytest_bpf.errors import UnavailableError, UnknownNameError, near_matches
from pytest_bpf.kernel import btf
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.features.attach_probes import ATTACH
from pytest_bpf.kernel.features.helpers import check_helper_name, helper_ids
from pytest_bpf.kernel.features.privilege import privilege
from pytest_bpf.kernel.features.probe import AVAILABLE, Probe, credentials, unavailable
from pytest_bpf.kernel.features.variants import variants
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.programs.load import Verdict, btf_id, calling, in_a_module, judge
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.release import (
    config,
    config_paths,
    kernel_version,
    not_configured,
    release,
)
from pytest_bpf.kinds.flags import MapFlags

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ATTACH_KINDS",
    "Probe",
    "attach",
    "btf_path",
    "check_attach_kind",
    "check_helper_name",
    "config",
    "config_paths",
    "has_btf",
    "helper",
    "helper_ids",
    "kernel_version",
    "kfunc",
    "map_type",
    "privilege",
    "program_type",
    "release",
    "type_exists",
    "type_has_field",
]

ATTACH_KINDS = tuple(ATTACH)
"""The kinds of attaching that `attach` knows."""

P = ParamSpec("P")


def _answer(probe: Callable[P, Probe]) -> Callable[P, Probe]:
    """Cache a probe for each set of credentials; what is unavailable becomes the answer "no"."""

    @cache
    def ask(_: tuple[str, str], *args: P.args, **kwargs: P.kwargs) -> Probe:
        try:
            return probe(*args, **kwargs)
        except UnavailableError as error:
            return unavailable(str(error))

    @wraps(probe)
    def answer(*args: P.args, **kwargs: P.kwargs) -> Probe:
        return ask(credentials(), *args, **kwargs)  # type: ignore[arg-type]

    return answer


def btf_path() -> Path | None:
    """Return the file with the running kernel's BTF, or None when there is none."""
    path = Path("/sys/kernel/btf/vmlinux")
    return path if path.exists() else None


def has_btf() -> Probe:
    """Say whether the running kernel offers its BTF."""
    if btf_path():
        return AVAILABLE
    return unavailable(not_configured("btf") or "there is no /sys/kernel/btf/vmlinux")


@_answer
def program_type(name: str) -> Probe:
    """Say whether a program of this type (libbpf's name: ``"sched_cls"``) can be loaded.

    Raises `UnknownNameError` with the near matches.
    """
    verdict = judge(name, variants(name)[0])
    if verdict.errno == 0 or verdict.log:
        return AVAILABLE
    if verdict.errno in _DENIED:
        return unavailable(_refused(f"{name} programs", verdict.errno))
    return unavailable()


@_answer
def map_type(name: str) -> Probe:
    """Say whether a map of this type (libbpf's name: ``"percpu_array"``) can be created.

    Raises `UnknownNameError` with the near matches.
    """
    if name == "arena":
        return _arena()
    answer = libbpf.function("libbpf_probe_bpf_map_type")(enums.map_type_id(name), None)
    if answer == -errnos.EOPNOTSUPP:
        return unavailable(f"libbpf {libbpf.version()} cannot probe for it, a newer one can")
    return AVAILABLE if answer > 0 else unavailable(privilege() or "")


def _arena() -> Probe:
    """Probe for what libbpf 1.1 does not know: one page that user space may map."""
    try:
        os.close(elements.create("arena", 0, 0, 1, MapFlags.MMAPABLE))
    except OSError as error:
        return unavailable(privilege() or "" if error.errno in _DENIED else "")
    return AVAILABLE


@_answer
def helper(name: str, program_type: str | None = None) -> Probe:
    """Say whether programs of a type, or of any type, may call a helper (``"bpf_ringbuf_output"``).

    Raises `UnknownNameError` for a name that no kernel has, as far as this one can tell.
    """
    check_helper_name(name)
    number = helper_ids().get(name)
    if number is None:
        return unavailable()
    kinds = [program_type] if program_type else enums.PROGRAM_TYPES[1:]
    ways = [(kind, way) for kind in kinds for way in variants(kind)]
    refusals = []
    for kind, way in ways:
        verdict = judge(kind, way, calling(number))
        if _may_call(number, verdict):
            return AVAILABLE
        if verdict.errno in _DENIED and not verdict.log:
            refusals.append(verdict.errno)
    whose = f"{program_type} programs" if program_type else "programs"
    if refusals and (privilege() or len(refusals) == len(ways)):
        return unavailable(_refused(whose, refusals[0]))
    return unavailable(f"{whose} may not call it")


def _may_call(number: int, verdict: Verdict) -> bool:
    """Say whether the verifier came as far as the call and then minded its arguments at most."""
    reached = f"#{number}" in verdict.log and not _NOT_ALLOWED.search(verdict.log)
    return verdict.errno == 0 or reached


_NOT_ALLOWED = re.compile(r"invalid func |unknown func |cannot use helper |not allowed in probe")
_DENIED = frozenset({errnos.EPERM, errnos.EACCES, errnos.ENOSYS})


def check_attach_kind(kind: str) -> None:
    """Raise `UnknownNameError`, with the near matches, for what is none of `ATTACH_KINDS`."""
    if kind not in ATTACH:
        hint = near_matches(kind, ATTACH)
        raise UnknownNameError(f"there is no kind of attaching {kind!r}{hint}")


@_answer
def attach(kind: str) -> Probe:
    """Say whether a program can be attached by one of `ATTACH_KINDS` (``"kprobe"``, ``"tc"``).

    Raises `UnknownNameError` with the near matches.
    """
    check_attach_kind(kind)
    try:
        ATTACH[kind]()
    except OSError as error:
        number = error.errno or errnos.EINVAL
        return unavailable(not_configured(kind) or _refused(f"{kind} programs", number))
    except UnavailableError as error:
        return unavailable(not_configured(kind) or str(error))
    return AVAILABLE


def _refused(what: str, number: int) -> str:
    missing = privilege() if number in _DENIED else None
    return missing or f"the kernel refuses {what} ({libbpf.error_name(number)})"


@_answer
def kfunc(name: str) -> Probe:
    """Say whether the kernel or a module that is loaded has a function of this name in its BTF.

    Who may call it is left open.
    """
    there = btf_id(name, btf.Kind.FUNC) or in_a_module(name, btf.Kind.FUNC)
    return AVAILABLE if there else unavailable()


@_answer
def type_exists(name: str) -> Probe:
    """Say whether the kernel's BTF has a struct, union, enum or typedef of this name."""
    return AVAILABLE if any(btf_id(name, kind) for kind in _TYPE_KINDS) else unavailable()


@_answer
def type_has_field(name: str, field: str) -> Probe:
    """Say whether a struct or union of the kernel's BTF has a member, in anonymous ones too."""
    for kind in (btf.Kind.STRUCT, btf.Kind.UNION, btf.Kind.TYPEDEF):
        number = btf_id(name, kind)
        composite = btf.vmlinux().type(number) if number else None
        if isinstance(composite, btf.Struct):
            members = (member.name for member in composite.flat_members())
            return AVAILABLE if field in members else unavailable()
    return unavailable()


_TYPE_KINDS = (
    *(btf.Kind.STRUCT, btf.Kind.UNION, btf.Kind.TYPEDEF),
    *(btf.Kind.ENUM, btf.Kind.ENUM64),
)
