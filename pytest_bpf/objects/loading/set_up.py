"""All that `Loader.load` takes beside the source, set on an open object."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError
from pytest_bpf.objects.names import unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_bpf.objects.loading.open_object import OpenObject
    from pytest_bpf.objects.maps.map import Map


@dataclass(frozen=True)
class SetUp:
    """What is set before the load, by the name of a program, a map or a variable.

    ``programs`` and ``skip`` are names or patterns (``"on_*"``) of the programs to load and to
    leave out. ``types``, ``attach_to``, ``flags`` and ``log_level`` are explained at `OpenProgram`,
    ``max_entries``, ``value_size`` and ``pins`` at `OpenMap`; ``flags`` takes both. ``maps`` has
    the maps that take the place of the declared ones. An int as ``log_level`` is for every program.
    """

    globals: Mapping[str, Any] = field(default_factory=dict)
    programs: Iterable[str] | None = None
    skip: Iterable[str] | None = ()
    types: Mapping[str, str] = field(default_factory=dict)
    attach_to: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    log_level: Mapping[str, int] | int | None = None
    max_entries: Mapping[str, int] = field(default_factory=dict)
    value_size: Mapping[str, int] = field(default_factory=dict)
    maps: Mapping[str, Map] = field(default_factory=dict)
    pins: Mapping[str, str | os.PathLike[str] | None] = field(default_factory=dict)

    def apply(self, obj: OpenObject) -> None:
        """Set all of it; raises what the setters of `OpenProgram` and `OpenMap` do."""
        _check_mappings(obj, self)
        if self.programs is not None or self.skip:
            _choose(obj, self.programs, self.skip)
        for name, value in self.types.items():
            obj.programs[name].type = value
        for name, value in self.attach_to.items():
            obj.programs[name].attach_target = value
        levels = self.log_level
        if isinstance(levels, int):
            levels = dict.fromkeys(obj.programs, levels)
        for name, level in (levels or {}).items():
            obj.programs[name].log_level = level
        for name, flags in self.flags.items():
            entry = obj.maps[name] if name in obj.maps else obj.programs[name]
            entry.flags = flags
        for name, size in self.value_size.items():
            obj.maps[name].value_size = size
        for name, count in self.max_entries.items():
            obj.maps[name].max_entries = count
        for name, other in self.maps.items():
            obj.maps[name].reuse(other)
        for name, path in self.pins.items():
            obj.maps[name].pin_path = path
        obj.globals.update(self.globals)


MAPPINGS = (
    *("globals", "types", "attach_to", "flags", "max_entries", "value_size", "maps", "pins"),
)
"""Settings that go by the name of a program, a map or a variable."""


def _choose(obj: OpenObject, programs: Iterable[str] | None, skip: Iterable[str] | None) -> None:
    """Load the programs that match ``programs``, without those that match ``skip``."""
    names = obj.handle.programs
    chosen = _matches(obj, programs) if programs is not None else None
    left_out = _matches(obj, skip or ())
    for name in names:
        if chosen is not None or name in left_out:
            load = (chosen is None or name in chosen) and name not in left_out
            obj.call("bpf_program__set_autoload", "program", name, load)


def _matches(obj: OpenObject, patterns: Iterable[str]) -> set[str]:
    names = obj.handle.programs
    matches: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if pattern in names:
            matches.add(pattern)
            continue
        some = {name for name in names if fnmatchcase(name, str(pattern))}
        if not some:
            raise unknown_name("program", pattern, obj.path.name, names)
        matches |= some
    return matches


def _check_mappings(obj: OpenObject, setup: SetUp) -> None:
    for name in MAPPINGS:
        value = getattr(setup, name)
        if not isinstance(value, Mapping):
            raise LoadError(
                f"{obj.path.name}: {name}={value!r}: pass a dict, as in {name}={{'name': ...}}"
            )
    if not isinstance(setup.log_level, (int, Mapping, type(None))):
        raise LoadError(
            f"{obj.path.name}: log_level={setup.log_level!r}: pass a number, or a dict by program"
        )
    for name in ("programs", "skip"):
        value = getattr(setup, name)
        if value is not None and not isinstance(value, Iterable):
            raise LoadError(f"{obj.path.name}: {name}={value!r}: pass names or patterns in a list")


def kconfig_text(kconfig: Mapping[str, Any] | str | None) -> str | None:
    """Return a kernel configuration as text: ``{"CONFIG_HZ": 250, "CONFIG_BPF": "y"}``.

    A bool is ``y`` or ``n``; ``"y"``, ``"n"`` and ``"m"`` stand as they are, other text in quotes.
    """
    if kconfig is None:
        return None
    if isinstance(kconfig, str) and (not kconfig.strip() or "CONFIG_" in kconfig):
        return kconfig
    if not isinstance(kconfig, Mapping):
        raise LoadError(
            f"kconfig={kconfig!r}: pass a dict, as in {{'CONFIG_HZ': 250}}, or text with lines as "
            "CONFIG_HZ=250"
        )
    return "".join(f"{name}={_kconfig_value(name, value)}\n" for name, value in kconfig.items())


def _kconfig_value(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "y" if value else "n"
    if isinstance(value, int) or value in {"y", "n", "m"}:
        return str(value)
    if not isinstance(value, str) or "\n" in value:
        raise LoadError(f"kconfig: {name}={value!r}: pass a bool, an int, 'm', or text in one line")
    return f'"{value}"'


def check_kconfig(obj: OpenObject, kconfig: Mapping[str, Any] | str | None) -> None:
    """Raise `UnknownNameError` for an option that the object does not ask for."""
    if isinstance(kconfig, Mapping):
        types = obj.handle.btf
        names = {v.name: v for v in types.variables(".kconfig")} if types else {}
        for name in kconfig:
            if name not in names:
                raise unknown_name("extern __kconfig variable", name, obj.path.name, names)


def btf_file(
    path: str | os.PathLike[str] | None, here: Callable[[str | os.PathLike[str]], Path]
) -> Path | None:
    """Return the file with the types to relocate by; `LoadError` when there is none.

    ``here`` says where a relative path starts.
    """
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)):
        raise LoadError(f"btf_path={path!r}: pass the path of a file with BTF")
    place = here(path)
    check_btf(place)
    return place


def check_btf(path: Path) -> None:
    """Raise `LoadError` for a file that has no BTF to relocate by."""
    if not path.is_file():
        what = "is no file" if path.exists() else "there is no such file"
        raise LoadError(f"btf_path={str(path)!r}: {what}")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise LoadError(f"btf_path={str(path)!r}: cannot be read: {error.strerror}") from None
    if start != b"\x7fELF" and start[:2] not in {b"\x9f\xeb", b"\xeb\x9f"}:
        raise LoadError(
            f"btf_path={str(path)!r}: has no BTF (it starts with {start!r}); pass a file as "
            "/sys/kernel/btf/vmlinux, or an ELF file with BTF"
        )
