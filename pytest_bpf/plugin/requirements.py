"""The marker ``bpf_requires``: what a test needs of the kernel, parsed, and what of it is missing.

.. code-block:: python

    @pytest.mark.bpf_requires(kernel=">=5.8", attach="kprobe", map_type=["ringbuf", "hash"])

===================  ================================================================
``kernel``           version specifier (PEP 440), against the kernel's x.y.z
``libbpf``           version specifier, against libbpf's x.y
``program_type``     libbpf's names: ``"xdp"``, ``"sched_cls"``
``map_type``         libbpf's names: ``"ringbuf"``, ``"percpu_array"``
``attach``           one of `pytest_bpf.kernel.features.ATTACH_KINDS`: ``"kprobe"``, ``"tc"``
``helper``           ``"bpf_ringbuf_output"``; callable from ``program_type`` when that is given
``kfunc``            ``"bpf_cpumask_create"``
``btf``              True: the kernel's BTF
``btf_type``         a type of the kernel, ``"sk_buff"``, or a member, ``"sk_buff.tstamp"``
``config``           ``"CONFIG_BPF_LSM"`` (y or m), or ``{"CONFIG_BPF_LSM": "y"}``
``command``          a command on PATH: ``"bpftool"``
``cpus``             the least number of CPUs that this process may use
``exact``            True: time that counts instructions (``--bpf-exact``); False: a real clock
===================  ================================================================

Wherever a name stands, a list or tuple of names may stand. The marks of a test, its class and its
module add up.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from pytest_bpf.errors import BpfError, UnavailableError, UnknownNameError, near_matches
from pytest_bpf.kinds import versions
from pytest_bpf.kinds.versions import since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_bpf.kernel.features.probe import Probe


class RequirementError(BpfError, ValueError):
    """A ``bpf_requires`` that cannot be understood: a mistake in the test, never a skip."""


class Mark(Protocol):
    """What a `pytest.Mark` offers."""

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments."""


@dataclass(frozen=True)
class Requirements:
    """What tests need; each field is a keyword of the marker, empty when nothing is asked.

    ``config`` holds (option, value) pairs; the value ``""`` means "y or m".
    """

    kernel: SpecifierSet = field(default_factory=SpecifierSet)
    libbpf: SpecifierSet = field(default_factory=SpecifierSet)
    program_type: tuple[str, ...] = ()
    map_type: tuple[str, ...] = ()
    attach: tuple[str, ...] = ()
    helper: tuple[str, ...] = ()
    kfunc: tuple[str, ...] = ()
    btf: bool = False
    btf_type: tuple[str, ...] = ()
    config: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    cpus: int = 0
    exact: bool | None = None

    @classmethod
    def parse(cls, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Requirements:
        """Return the requirements of one mark.

        Raises `RequirementError` for unknown keywords and names, and for malformed values.
        """
        keywords = {field.name for field in fields(cls)}
        if args:
            raise RequirementError(
                f"bpf_requires takes keywords only, not {args[0]!r}; "
                f"write for example bpf_requires(program_type={str(args[0])!r})"
            )
        if not kwargs:
            raise RequirementError(f"bpf_requires requires nothing{near_matches('', keywords)}")
        for keyword in kwargs:
            if keyword not in keywords:
                hint = near_matches(keyword, keywords)
                raise RequirementError(f"bpf_requires has no keyword {keyword!r}{hint}")
        return cls(**{keyword: _parse(keyword, value) for keyword, value in kwargs.items()})

    @classmethod
    def of(cls, marks: Iterable[Mark]) -> Requirements:
        """Return what all these marks ask for together; raises `RequirementError`."""
        total = cls()
        for mark in marks:
            total |= cls.parse(mark.args, mark.kwargs)
        return total

    def __or__(self, other: Requirements) -> Requirements:
        return Requirements(
            kernel=self.kernel & other.kernel,
            libbpf=self.libbpf & other.libbpf,
            btf=self.btf or other.btf,
            cpus=max(self.cpus, other.cpus),
            exact=self.exact if other.exact is None else other.exact,
            **{
                name: tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name))))
                for name in (*_NAMES, "config")
            },
        )

    def missing(self) -> list[str]:
        """Return what of this the running system lacks, a phrase a reason; empty when nothing.

        What this process may not find out counts as missing, and its phrase says which privilege
        is needed.
        """
        by_reason: dict[str, list[str]] = {}
        for need, reason in _missing(self):
            by_reason.setdefault(reason, []).append(need)
        alone = by_reason.pop("", [])
        return [*alone, *(f"{', '.join(needs)}: {reason}" for reason, needs in by_reason.items())]


_NAMES = ("program_type", "map_type", "attach", "helper", "kfunc", "btf_type", "command")


def _parse(keyword: str, value: object) -> Any:
    if keyword in {"kernel", "libbpf"}:
        return _specifier(keyword, value)
    if keyword in {"btf", "exact"}:
        if not isinstance(value, bool):
            raise _mistake(keyword, value, "must be True or False")
        return value
    if keyword == "cpus":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _mistake(keyword, value, "must be a number of CPUs, 1 or more")
        return value
    if keyword == "config":
        return _options(value)
    names = _names(keyword, value)
    for name in names:
        _check_name(keyword, name)
    return names


def _mistake(keyword: str, value: object, sentence: str) -> RequirementError:
    return RequirementError(f"bpf_requires({keyword}={value!r}): {sentence}")


def _specifier(keyword: str, value: object) -> SpecifierSet:
    try:
        specifier = SpecifierSet(value if isinstance(value, str) else "")
    except InvalidSpecifier:
        specifier = SpecifierSet()
    if not len(specifier):
        raise _mistake(keyword, value, "must be a version specifier, such as '>=5.8' or '>=5.8,<6'")
    return specifier


def _names(keyword: str, value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (tuple, list, set, frozenset)) or not names:
        raise _mistake(keyword, value, "must be a name or a list of names")
    for name in names:
        if not isinstance(name, str) or not name:
            raise _mistake(keyword, value, f"{name!r} is not a name")
    return tuple(sorted(names)) if isinstance(names, (set, frozenset)) else tuple(names)


def _options(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, Mapping):
        options = tuple(value.items())
    else:
        options = tuple((name, "") for name in _names("config", value))
    if not options:
        raise _mistake("config", value, "must name at least one option")
    for name, setting in options:
        if not isinstance(name, str) or not name.startswith("CONFIG_"):
            raise _mistake("config", value, f"{name!r} must be written as 'CONFIG_{name}'")
        if not isinstance(setting, str):
            raise _mistake("config", value, f"the value of {name} must be text, such as 'y' or 'm'")
    return options


def _check_name(keyword: str, name: str) -> None:
    from pytest_bpf.kernel import features
    from pytest_bpf.kernel.btf import enums

    checks = {
        "program_type": enums.program_type_id,
        "map_type": enums.map_type_id,
        "attach": features.check_attach_kind,
        "helper": features.check_helper_name,
    }
    try:
        if keyword in checks:
            with suppress(UnavailableError):
                checks[keyword](name)
    except UnknownNameError as error:
        raise RequirementError(f"bpf_requires({keyword}={name!r}): {error}") from None


def _missing(requirements: Requirements) -> Iterator[tuple[str, str]]:
    """Yield what is missing, and why; the reason is empty when there is nothing to add."""
    from pytest_bpf.kernel import features
    from pytest_bpf.kernel.sys.exact import is_exact

    yield from _versions_missing(requirements)
    for option, value in requirements.config:
        yield from _option_missing(option, value)
    if requirements.btf:
        yield from _unless(features.has_btf(), "BTF of the kernel")
    for name in requirements.program_type:
        first = since(versions.PROGRAM_KINDS, name)
        yield from _unless(features.program_type(name), f"program type {name!r}", first)
    for name in requirements.map_type:
        first = since(versions.MAP_KINDS, name)
        yield from _unless(features.map_type(name), f"map type {name!r}", first)
    for kind in requirements.attach:
        yield from _unless(features.attach(kind), f"{kind} attachment")
    for name in requirements.helper:
        answers = [features.helper(name, kind) for kind in requirements.program_type or (None,)]
        yield from _unless(next(filter(None, answers), answers[0]), f"helper {name!r}")
    for name in requirements.kfunc:
        yield from _name_missing(f"kfunc {name!r}", name, features.kfunc)
    for name in requirements.btf_type:
        yield from _type_missing(name)
    for name in requirements.command:
        if not shutil.which(name):
            yield f"command {name!r} (not on PATH)", ""
    usable = len(os.sched_getaffinity(0))
    if usable < requirements.cpus:
        yield f"{requirements.cpus} CPUs ({usable} usable here)", ""
    if requirements.exact not in (None, is_exact()):
        need = (
            "time that counts instructions (--bpf-exact)" if requirements.exact else "a real clock"
        )
        yield need, "" if requirements.exact else "time is a count of instructions here"


def _unless(answer: Probe, need: str, first: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``need`` where the answer is no; ``first`` says which kernels have it."""
    if not answer:
        yield (need, answer.reason) if answer.reason else (f"{need}{first}", "")


def _versions_missing(requirements: Requirements) -> Iterator[tuple[str, str]]:
    from pytest_bpf.kernel import features
    from pytest_bpf.kernel.sys import libbpf

    version = ".".join(map(str, features.kernel_version()))
    if not requirements.kernel.contains(version, prereleases=True):
        release = features.release()
        this = release if release.startswith(version) else f"{version}, {release}"
        yield f"kernel {requirements.kernel} (this is {this})", ""
    if not len(requirements.libbpf):
        return
    try:
        if not requirements.libbpf.contains(libbpf.version(), prereleases=True):
            yield f"libbpf {requirements.libbpf} (this is {libbpf.version()})", ""
    except UnavailableError as error:
        yield f"libbpf {requirements.libbpf}", str(error)


def _option_missing(option: str, setting: str) -> Iterator[tuple[str, str]]:
    from pytest_bpf.kernel import features

    value = features.config(option)
    need = f"{option}={setting}" if setting else option
    if value is None:
        tried = ", ".join(map(str, features.config_paths()))
        yield need, f"the kernel's configuration cannot be read (tried {tried})"
    elif value == "n" != setting:
        yield f"{need} (it is not set)", ""
    elif value != setting and (setting or value not in {"y", "m"}):
        yield f"{need} (it is {value})", ""


def _type_missing(name: str) -> Iterator[tuple[str, str]]:
    from pytest_bpf.kernel import features

    type_name, _, member = name.partition(".")
    missing = list(_name_missing(f"BTF type {type_name!r}", type_name, features.type_exists))
    yield from missing
    if member and not missing:
        need = f"member {member!r} of BTF type {type_name!r}"
        yield from _name_missing(need, member, partial(features.type_has_field, type_name))


def _name_missing(need: str, name: str, probe: Callable[[str], Probe]) -> Iterator[tuple[str, str]]:
    """Yield ``need`` where the kernel's BTF lacks a name, with the name that may be meant."""
    from pytest_bpf.kernel import features
    from pytest_bpf.kernel.features.near import near_name

    answer, path = probe(name), features.btf_path()
    if not answer:
        yield from _unless(answer, need + (near_name(path, name, probe) if path else ""))
