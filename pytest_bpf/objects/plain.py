"""Values of C as Python's own, for what keeps or compares them: snapshot tools, JSON."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from pytest_bpf.kernel.layers.packet import Packet
from pytest_bpf.kernel.layers.text import lines
from pytest_bpf.objects.maps.map import Map


def to_plain(value: Any) -> Any:
    """Return a value as dicts, lists, text and numbers, the same in every run.

    Maps and their contents become dicts in the order of their keys, records dicts of their members,
    values of enums their names, packets their layers as lines of text, bytes hexadecimal text, and
    events lists. Nothing of it has an id or an address. Snapshot tools take the result as it is::

        assert to_plain(obj.maps["hits"]) == snapshot

    Values of map-in-map and program arrays are maps and ids, which stay what they are made of.
    """
    if isinstance(value, Packet):
        return lines(value)
    if isinstance(value, Map):
        value = value.copy()
    if isinstance(value, Mapping):
        return _mapping(value)
    if hasattr(value, "_asdict"):
        return {name: to_plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (list, tuple)):
        return [to_plain(each) for each in value]
    return _number(value)


def _mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    pairs = [(_key(to_plain(key)), to_plain(each)) for key, each in value.items()]
    try:
        pairs.sort(key=lambda pair: pair[0])
    except TypeError:
        pairs.sort(key=lambda pair: repr(pair[0]))
    return dict(pairs)


def _key(key: Any) -> Any:
    """Return a key that a dict takes: records and lists as text."""
    if isinstance(key, dict):
        return ", ".join(f"{name}={each}" for name, each in key.items())
    return ", ".join(map(str, key)) if isinstance(key, list) else key


def _number(value: Any) -> Any:
    """Return the number that a value is; an enumerator's name."""
    name = getattr(value, "name", None)
    if isinstance(value, int) and isinstance(name, str):
        return name
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)
