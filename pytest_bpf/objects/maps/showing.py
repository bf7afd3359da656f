"""A map as text: its first elements, without ids, so that it reads the same in every run."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError, MapError
from pytest_bpf.kinds.maps import EVENT_MAPS, KEYLESS, STARTS_FULL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects.maps.map import Map

FEW, MANY = 5, 40
"""Elements of one line, and of a table."""

LONGEST = 160
"""Characters of an element that are shown."""

MOST_BYTES = 1 << 20
"""Bytes of a map that are read to be shown; of a larger one nothing is."""


def title(entry: Map) -> str:
    """Return name, type and size, as in ``"hits (hash, max_entries 64)"``, and if it is closed."""
    try:
        _ = entry.fd
        state = ""
    except MapError:
        state = ", closed"
    return f"{entry.name} ({entry.type}, max_entries {entry.max_entries}{state})"


def in_one_line(entry: Map) -> str:
    """Return a map with its first elements, or without where they cannot be read."""
    elements, count = _elements(entry, FEW)
    if elements is None:
        return f"<Map {title(entry)}>"
    shown = ", ".join(f"{key!r}: {_shorten(value)}" for key, value in elements)
    more = f", ... {count - len(elements)} more" if count > len(elements) else ""
    return f"<Map {title(entry)}: {{{shown}{more}}}>"


def table(entry: Map) -> str:
    """Return a map as a table, an element a line, in order of the keys."""
    elements, count = _elements(entry, MANY)
    if elements is None:
        return title(entry)
    noun = "element" if count == 1 else "elements"
    kind = " other than 0" if entry.type in STARTS_FULL else ""
    lines = [f"{title(entry)}: {count} {noun}{kind}"]
    width = max((len(repr(key)) for key, _ in elements), default=0)
    lines += [f"  {key!r:>{width}}: {_shorten(value)}" for key, value in elements]
    if count > len(elements):
        lines.append(f"  ... and {count - len(elements)} more")
    return "\n".join(lines)


def _elements(entry: Map, most: int) -> tuple[list[tuple[Any, Any]] | None, int]:
    """Return the first elements by key, and how many there are; None where none can be read."""
    size = entry.max_entries * (entry.key_size + entry.value_size)
    if entry.type in EVENT_MAPS | KEYLESS or size > MOST_BYTES:
        return None, 0
    try:
        elements = list(_decoded(entry))
    except (BpfError, OSError, ValueError):  # closed, or of a kind that cannot be read
        return None, 0
    try:
        elements.sort(key=lambda element: element[0])
    except TypeError:
        elements.sort(key=lambda element: repr(element[0]))
    return list(islice(elements, most)), len(elements)


def _decoded(entry: Map) -> Iterator[tuple[Any, Any]]:
    decode_key, decode_value = entry.layout.decode_key, entry.layout.decode_value
    sparse = entry.type in STARTS_FULL
    for key, value in entry.raw_items():
        if not (sparse and value.count(0) == len(value)):
            yield decode_key(key), decode_value(value)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
