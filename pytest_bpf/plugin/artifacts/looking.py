"""What is in a map that was not there when it was loaded, in a bounded number of steps."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_bpf.errors import BpfError
from pytest_bpf.kinds.maps import EVENT_MAPS, KEYLESS, STARTS_FULL
from pytest_bpf.objects.elf import sections
from pytest_bpf.plugin.artifacts.evidence import ElementChange, EventState, MapState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_bpf.objects import Object
    from pytest_bpf.objects.maps.map import Map

    Unread = Callable[[str, Exception], object]
    """Notes that something could not be read, and why."""

T = TypeVar("T")

Variable = tuple[str, Any, Any]
"""A global variable: its name, its value when it was loaded, and its value now."""

MOST_BYTES = 256 << 20
"""Bytes of a map that are read; a larger one is left alone."""

DECODED = 2000
"""Changed elements that are decoded, to find the largest changes."""

KEPT = 200
"""Changes that are kept of a map."""

LONGEST = 120
"""Characters of a value that are shown."""

OF_C_TESTS = "bpf_test_results"
"""The variable by which a test written in C tells what it found, which its failure has said."""

UNREADABLE = {"struct_ops", "arena", "cgroup_array", "perf_event_array"}


def read(what: str, values: Iterable[T], unread: Unread) -> list[T]:
    """Return what can be read; of an error that ends it ``unread`` is told, and nothing is lost."""
    kept: list[T] = []
    try:
        kept.extend(values)
    except (BpfError, OSError, ValueError) as error:
        unread(what, error)
    return kept


def map_state(entry: Map) -> MapState:
    """Return the state of a map; raises `BpfError` where it cannot be read."""
    pin = str(entry.older_pin or "")
    if entry.type in EVENT_MAPS:
        return MapState(
            entry.name, entry.type, max_entries=entry.max_entries, older_pin=pin,
            events=_events(entry),
        )  # fmt: skip
    if entry.type in KEYLESS | UNREADABLE:
        return MapState(entry.name, entry.type, max_entries=entry.max_entries, older_pin=pin)
    if entry.max_entries * (entry.key_size + entry.value_size) > MOST_BYTES:
        why = f"it may have {entry.max_entries} elements: too many to look at"
        return MapState(entry.name, entry.type, max_entries=entry.max_entries, unread=why)
    contents = entry.copy()
    starts_full = entry.type in STARTS_FULL
    changes: list[ElementChange] = []
    changed = 0
    slots = []
    for key, value in contents.raw_items():
        if starts_full and value.count(0) == len(value):
            continue
        if changed == DECODED and not starts_full:
            changed = len(contents)
            break
        changed += 1
        if changed <= DECODED:
            changes.append(_change(entry, key, value, starts_full=starts_full))
            if entry.type == "prog_array":
                slots.append(int.from_bytes(key, "little"))
    changes.sort(key=lambda change: -change.size)
    return MapState(
        entry.name,
        entry.type,
        entries=None if starts_full else len(contents),
        max_entries=entry.max_entries,
        changes=tuple(changes[:KEPT]),
        changed=changed,
        per_cpu=entry.per_cpu,
        older_pin=pin,
        slots=tuple(sorted(slots)),
    )


def variables_state(variables: Iterable[Variable]) -> Iterator[MapState]:
    """Yield the global variables that changed, as a map of their own; nothing where none did."""
    rows = [
        ElementChange(name, shorten(before), shorten(now), _size(now), tuple(_numbers(now)))
        for name, before, now in variables
        if before != now
    ]
    if rows:
        rows.sort(key=lambda row: -row.size)
        yield MapState("variables", "globals", changes=tuple(rows[:KEPT]), changed=len(rows))


def variables(obj: Object, unread: Unread) -> list[Variable]:
    """Return the global variables of an object that can change.

    ``unread`` is called for a section that cannot be read: the others are read all the same.
    """
    initial = sections(obj.content) if obj.content else {}
    every: list[Variable] = []
    for section in obj.globals.sections:
        values = obj.globals.since_load(section, initial.get(section, b""))
        every += read(f"variables in {section} of {obj.path.name}", values, unread)
    return [variable for variable in every if variable[0] != OF_C_TESTS]


def shorten(value: object) -> str:
    """Return a value's text, bounded.

    >>> shorten(list(range(100)))[-12:]
    '28, 29, 3...'
    """
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _change(entry: Map, raw_key: bytes, raw_value: bytes, *, starts_full: bool) -> ElementChange:
    key: Any = raw_key
    value: Any = raw_value
    with suppress(BpfError, ValueError):
        key = entry.layout.decode_key(raw_key)
        value = entry.layout.decode_value(raw_value)
    cpus: tuple[int, ...] = ()
    if entry.per_cpu and not isinstance(value, bytes):
        cpus = tuple(cpu for cpu, each in enumerate(value) if any(map(bool, _numbers(each))))
    return ElementChange(
        f"[{shorten(key)}]",
        "0" if starts_full else "",
        shorten(value),
        _size(value),
        tuple(islice((*_numbers(key), *_numbers(value)), 16)),
        cpus,
    )


def _numbers(value: Any) -> Iterator[int]:
    """Yield the integers in a value; those of bytes are none."""
    if isinstance(value, int):
        yield int(value)
    elif isinstance(value, (tuple, list)):
        for each in islice(value, 256):
            yield from _numbers(each)


def _size(value: Any) -> float:
    return float(sum(min(abs(number), 1 << 63) for number in _numbers(value)))


def _events(entry: Map) -> EventState | None:
    """Return what a buffer holds; where the test has no reader of it, what one would see."""
    reader = entry.reader
    if reader is None:
        if entry.type != "ringbuf":
            return None
        reader = entry.events()
        return EventState(None, reader.pending, _lost(reader))
    return EventState(reader.consumed, reader.pending, _lost(reader))


def _lost(reader: Any) -> int | None:
    try:
        return int(reader.lost)
    except BpfError:
        return None
