"""From an open object to a loaded one."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError, near_matches, with_article
from pytest_bpf.kernel.btf.enums import map_type_name
from pytest_bpf.kernel.maps.memory import MapSpec, check_memory
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.interrupts import call_uninterrupted
from pytest_bpf.kernel.sys.mountinfo import mounts
from pytest_bpf.kinds.programs import SECTIONS
from pytest_bpf.objects.identity import program_type
from pytest_bpf.objects.loading import struct_ops
from pytest_bpf.objects.loading.attach_target import set_attach_target
from pytest_bpf.objects.loading.object import Object
from pytest_bpf.objects.loading.parts import parts_of
from pytest_bpf.objects.loading.refusal import explain
from pytest_bpf.objects.loading.sections import section_flags
from pytest_bpf.objects.loading.settings import FULL_LOG_SIZE, HandleOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.objects.loading.handle import Handle
    from pytest_bpf.objects.loading.settings import PendingSettings
    from pytest_bpf.objects.maps.map import Map

EVENT_MAPS = {27: 0, 4: 4}
"""``BPF_MAP_TYPE_RINGBUF``, ``_PERF_EVENT_ARRAY``: the size of keys and values they must have."""


def load(owner: HandleOwner, pins: Callable[[], Path] | None) -> Object:
    """Load an open object; see `OpenObject.load`."""
    handle = owner.take()
    settings = owner.settings.copy()
    log = partial(whole_log, HandleOwner(owner.file, settings))
    try:
        handle.map_types  # noqa: B018 (libbpf forgets some of them while it loads)
        handle.inner_maps  # noqa: B018 (and all of these)
        created_pins = prepare(handle, settings, pins)
        older = _older_pins(handle, created_pins)
        with libbpf.messages() as messages:
            try:
                libbpf.call("bpf_object__load", handle.pointer)
            except OSError as error:
                raise explain(handle, error, messages, log) from None
        parts = parts_of(handle, log, settings.attach_targets, created_pins)
        for name, path in older.items():
            if name in parts.maps:
                parts.maps[name].older_pin = path
        return Object(parts, owner.file.content)
    except BaseException:
        handle.close()
        raise


def whole_log(owner: HandleOwner, program: str, level: int) -> str:
    """Load one program once more for its whole log, and let it go."""
    settings = owner.settings.copy()
    settings.log_size = FULL_LOG_SIZE
    settings.log_levels[program] = level | libbpf.LOG_STATS
    handle = HandleOwner(owner.file, settings).take()
    try:
        for name, pointer in handle.programs.items():
            libbpf.call("bpf_program__set_autoload", pointer, name == program)
        prepare(handle, settings, None)
        with libbpf.messages():
            call_uninterrupted(libbpf.function("bpf_object__load"), handle.pointer)
        return handle.log(program)
    finally:
        handle.close()


def prepare(
    handle: Handle, settings: PendingSettings, pins: Callable[[], Path] | None
) -> list[Path]:
    """Tell libbpf what waits for the load, and return the pins that the load will create."""
    for name in handle.autoloaded():
        _prepare_program(handle, settings, name)
    for name, pointer in handle.maps.items():
        size = EVENT_MAPS.get(libbpf.call("bpf_map__type", pointer))
        if size is not None:
            for part in ("key", "value"):  # what is declared is the type of the events
                libbpf.call(f"bpf_map__set_{part}_size", pointer, size)
        if name in settings.maps:
            _reuse(f"{handle.path.name}: map {name!r}", pointer, settings.maps[name])
    if bare := struct_ops.leave_out(handle.maps.values(), handle.programs.values()):
        raise LoadError(
            f"{handle.path.name}: map {bare[0]!r} (struct_ops) has none of its functions, and "
            f"libbpf {libbpf.version()} cannot load it like that; write one, as in "
            'SEC("struct_ops/init"), or take a libbpf from 1.4 on (bpf_libbpf)'
        )
    check_memory(handle.path.name, _specs(handle, settings))
    return [path for path in _set_pins(handle, settings, pins) if not path.exists()]


def _specs(handle: Handle, settings: PendingSettings) -> Iterator[MapSpec]:
    """Yield what the maps are created with that the load creates."""
    autocreate = libbpf.function("bpf_map__autocreate")
    for name, pointer in handle.maps.items():
        if name not in settings.maps and autocreate(pointer):
            sizes = (
                libbpf.call(f"bpf_map__{field}", pointer)
                for field in ("key_size", "value_size", "max_entries", "map_flags", "map_extra")
            )
            yield MapSpec(name, map_type_name(libbpf.call("bpf_map__type", pointer)), *sizes)


def _prepare_program(handle: Handle, settings: PendingSettings, name: str) -> None:
    pointer = handle.programs[name]
    section, kind = handle.section(name), program_type(pointer)
    where = f"{handle.path.name}: program {name!r} ({section})"
    if kind == "unspec" and section == ".text":
        raise LoadError(
            f"{handle.path.name}: function {name!r} has no SEC(): write one that says what kind of "
            'program it is, as SEC("xdp"), or make it static'
        )
    if kind == "unspec":
        near = near_matches(section, SECTIONS) if section else ""
        if section and "did you mean" not in near:
            near = near_matches(section.partition("/")[0], SECTIONS)
        guess = f" ({near.removeprefix('; ')})" if "did you mean" in near else ""
        raise LoadError(
            f"{where}: its section says no program type that libbpf {libbpf.version()} knows"
            f"{guess}; for a section of your own say it by types={{{name!r}: ...}}, as in 'xdp'"
            f"{near if not guess else ''}"
        )
    flags = section_flags(section)
    if flags:
        own = libbpf.call("bpf_program__flags", pointer)
        libbpf.call("bpf_program__set_flags", pointer, own | flags)
    if name in settings.attach_targets:
        set_attach_target(where, pointer, kind, settings.attach_targets[name])
    elif kind == "ext":
        raise LoadError(
            f"{where} replaces a function of a loaded program: "
            f"pass attach_to={{{name!r}: (program, 'function')}}"
        )
    level = settings.log_levels.get(name, libbpf.LOG_STATS)
    libbpf.call("bpf_program__set_log_level", pointer, level | libbpf.LOG_STATS)
    size = settings.log_size if level in {0, libbpf.LOG_STATS} else FULL_LOG_SIZE
    handle.keep_log(name, size)


def _set_pins(
    handle: Handle, settings: PendingSettings, pins: Callable[[], Path] | None
) -> list[Path]:
    """Set where maps are pinned: those pinned by name in ``pins``, the others where it was set."""
    paths = []
    declared = libbpf.function("bpf_map__pin_path")
    for name, pointer in handle.maps.items():
        if name in settings.pins:
            path = settings.pins[name]
            _check_pin(f"{handle.path.name}: map {name!r}", path)
        elif declared(pointer):
            path = pins() / name if pins else None
        else:
            continue
        libbpf.call("bpf_map__set_pin_path", pointer, bytes(path) if path else None)
        if path:
            paths.append(path)
    return paths


def _check_pin(where: str, path: Path | None) -> None:
    """Refuse a folder that does not exist: libbpf would make it, wherever that is, and leave it."""
    if path is None or path.parent.is_dir():
        return
    if not any(path.absolute().is_relative_to(mount.path) for mount in mounts("bpf")):
        raise LoadError(
            f"{where} cannot be pinned at {path}: there is no folder {path.parent}; pins are in "
            "folders of a bpf file system, as bpf.pins is one"
        )


def _older_pins(handle: Handle, created: list[Path]) -> dict[str, Path]:
    """Return the pins, by map, that were there before: the load takes the maps behind them."""
    declared = libbpf.function("bpf_map__pin_path")
    pins = ((name, declared(pointer)) for name, pointer in handle.maps.items())
    paths = {name: Path(os.fsdecode(raw)) for name, raw in pins if raw}
    return {name: path for name, path in paths.items() if path not in created}


def _reuse(where: str, pointer: int, other: Map) -> None:
    """Put a map that exists in the place of one that is declared alike."""
    ours, theirs = libbpf.call("bpf_map__type", pointer), other.info
    different = (
        []
        if ours == theirs.type
        else [f"{with_article(other.type)}, not {with_article(map_type_name(ours))}"]
    )
    for size in ("key_size", "value_size") if ours not in EVENT_MAPS else ():
        declared, actual = libbpf.call(f"bpf_map__{size}", pointer), getattr(theirs, size)
        if declared != actual:
            different.append(f"of {size} {actual}, not {declared}")
    if different:
        raise LoadError(f"{where}: {other.name!r} cannot take its place: it is {different[0]}")
    try:
        libbpf.call("bpf_map__reuse_fd", pointer, other.fd)
    except OSError as error:
        raise LoadError(f"{where}: cannot be shared: {error.strerror}") from None
