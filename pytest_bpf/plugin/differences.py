"""Failed comparisons of maps, records and per-CPU values, as what differs and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

USED = {"pytest_bpf.objects", "pytest_bpf.kernel.layers", "pytest_bpf.traffic"}
"""A session that has imported none of them compares nothing of ours."""

MOST = 10
"""How many differences are shown."""

LONGEST = 200
"""Characters of a value that are shown."""

SEARCHED = 1000
"""Elements of a list among which the one that is nearest to a value is looked for."""


def explain(op: str, left: Any, right: Any) -> list[str] | None:
    """Return the lines for a comparison that failed, or None where nothing of ours is compared.

    For ``==``: the keys, members, CPUs and positions that differ, the first ten of them. For
    ``in`` and ``not in``: what the map has, or the element of a list that is nearest to a record.
    """
    if not USED.intersection(sys.modules):
        return None
    if op == "==" and (lines := _packets(left, right)) is not None:
        return [lines[0], *_first(lines[1:])]
    if op == "==" and (_is_ours(left) or _is_ours(right)):
        return _unequal(left, right)
    if op == "in":
        return _absent(left, right)
    if op == "not in" and _is_map(right):
        return [
            f"{_format(left)} not in {_brief(right)}",
            f"its value is {_format(right.get(left))}",
        ]
    return None


def _packets(left: object, right: object) -> list[str] | None:
    from pytest_bpf.plugin import packets

    return packets.explain(left, right)


def _unequal(left: object, right: object) -> list[str] | None:
    lines = list(_differences("", left, right))
    if not lines:
        return [f"{_brief(left)} == {_brief(right)}", "they are equal by now: a map has changed"]
    if lines[0].startswith(": "):
        return None
    count = "1 difference" if len(lines) == 1 else f"{len(lines)} differences"
    return [f"{_brief(left)} == {_brief(right)}", f"{count}, left != right:", *_first(lines)]


def _absent(value: object, container: Any) -> list[str] | None:
    if _is_map(container):
        keys = [_format(key) for key in islice(container, MOST + 1)]
        more = f", ... ({len(container)} in all)" if len(keys) > MOST else ""
        contents = f"its keys: {', '.join(keys[:MOST])}{more}" if keys else "it is empty"
        return [f"{_format(value)} in {_brief(container)}", contents]
    if isinstance(container, list) and _is_ours(value) and container:
        tried = ((at, list(_differences("", each, value))) for at, each in enumerate(container))
        at, nearest = min(islice(tried, SEARCHED), key=lambda lines: len(lines[1]))
        return [
            f"{_format(value)} in {_brief(container)}",
            f"the nearest is [{at}], element != value:",
            *_first(nearest),
        ]
    return None


def _differences(path: str, left: Any, right: Any) -> Iterator[str]:
    """Yield a line for each place at which two values differ; of equal ones, none."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        yield from _keys(path, dict(left.items()), dict(right.items()), "[{!r}]")
    elif left == right:
        return
    elif _is_record(left) and _is_record_like(right, left):
        yield from _keys(path, _members(left), _members(right, left), ".{}")
    elif _is_record(right) and _is_record_like(left, right):
        yield from _keys(path, _members(left, right), _members(right), ".{}")
    elif _is_sequence(left) and _is_sequence(right):
        yield from _elements(path, left, right)
    else:
        yield f"{path}: {_format(left)} != {_format(right)}"


def _keys(path: str, left: Mapping[Any, Any], right: Mapping[Any, Any], at: str) -> Iterator[str]:
    for key in _ordered(left):
        where = path + at.format(key)
        if key not in right:
            yield f"{where}: only on the left: {_format(left[key])}"
        else:
            yield from _differences(where, left[key], right[key])
    for key in _ordered(right):
        if key not in left:
            yield f"{path + at.format(key)}: only on the right: {_format(right[key])}"


def _ordered(keys: Iterable[Any]) -> list[Any]:
    """Sort keys that can be sorted, so that a failure reads the same in every run."""
    listed = list(keys)
    if any(isinstance(key, str) for key in listed):
        return listed  # members: the order of their struct
    try:
        return sorted(listed)
    except TypeError:
        return listed


def _elements(path: str, left: Sequence[Any], right: Sequence[Any]) -> Iterator[str]:
    per_cpu = _is_per_cpu(left) or _is_per_cpu(right)
    at = "[CPU {}]" if per_cpu else "[{}]"
    yield from _keys(path, dict(enumerate(left)), dict(enumerate(right)), at)
    if per_cpu:
        sums = [_sum(values) for values in (left, right)]
        if None not in sums and sums[0] != sums[1]:
            yield f"{path}[sum]: {_format(sums[0])} != {_format(sums[1])}"


def _sum(values: Sequence[Any]) -> Any:
    from pytest_bpf.errors import MapError
    from pytest_bpf.objects.maps.percpu import add

    try:
        return add(values)
    except (MapError, TypeError, ValueError, IndexError):
        return None


def _is_ours(value: object) -> bool:
    """Say whether a value, or what a list, tuple or dict begins with, is a map's or an event's."""
    if isinstance(value, dict):
        value = next(iter(value.values()), None)
    elif isinstance(value, list):
        value = value[0] if value else None
    return _is_map(value) or _is_record(value) or _is_per_cpu(value)


def _is_map(value: object) -> bool:
    from pytest_bpf.objects import Map

    return isinstance(value, Map)


def _is_per_cpu(value: object) -> bool:
    from pytest_bpf.objects import PerCPU

    return isinstance(value, PerCPU)


def _is_record(value: object) -> bool:
    from pytest_bpf.kernel.values.codec import Record

    return isinstance(value, Record)


def _is_record_like(value: object, record: Any) -> bool:
    """Say whether a value can be compared with a record member by member."""
    if isinstance(value, Mapping):
        return True
    return isinstance(value, tuple) and len(value) == len(record)


def _is_sequence(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _members(value: Any, like: Any = None) -> Mapping[str, Any]:
    """Return members by name: of a record by its own names, of a tuple by those of ``like``."""
    if isinstance(value, Mapping):
        return value
    fields = value._fields if _is_record(value) else like._fields
    return dict(zip(fields, value, strict=True))


def _first(lines: Iterable[str]) -> list[str]:
    listed = list(lines)
    more = len(listed) - MOST
    return listed[:MOST] + ([f"... and {more} more"] if more > 0 else [])


def _brief(value: Any) -> str:
    """Name a value in a headline: what is long is shown by its differences."""
    if _is_map(value):
        from pytest_bpf.objects.maps.showing import title

        return f"<Map {title(value)}>"
    text = repr(value) if not isinstance(value, (list, dict)) else ""
    if text and len(text) <= LONGEST:
        return text
    size = f" of {len(value)}" if isinstance(value, (list, dict, tuple)) else ""
    return f"{type(value).__name__}{size}"


def _format(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
