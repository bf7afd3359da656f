"""One value per possible CPU, and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pytest_bpf.errors import MapError
from pytest_bpf.kernel.values.records import Elements, Record


class PerCPU(tuple[Any, ...]):
    """The values of one key of a per-CPU map, by CPU number, one for each *possible* CPU.

    Equal to a list or tuple of the values of all CPUs, and to a value that each of them has.
    """

    __slots__ = ()

    def sum(self) -> Any:
        """Add the values up; structs and arrays are added member by member.

        Raises `MapError` for values that have no sum (strings, bytes).
        """
        return add(self)

    def __eq__(self, other: object) -> bool:
        """Compare with one value for each CPU, or with one that all of them have."""
        other = other.tolist() if hasattr(other, "tolist") else other
        if isinstance(other, (tuple, list)) and tuple.__eq__(self, tuple(other)):
            return True
        return not isinstance(other, PerCPU) and all(value == other for value in self)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return tuple.__hash__(self)

    def __repr__(self) -> str:
        return f"PerCPU({', '.join(map(repr, self))})"


def _names(value: Any) -> Iterable[str]:
    """Return what the parts of a record or an array are called in a message."""
    return value._fields if isinstance(value, Record) else [f"[{n}]" for n in range(len(value))]


def add(values: Iterable[Any], member: str = "") -> Any:
    """Return the sum of values of one shape: numbers, records, tuples of them.

    >>> add([(1, 2), (10, 20)])
    (11, 22)
    """
    listed = list(values)
    first = listed[0]
    if isinstance(first, (Record, Elements)):
        columns = zip(_names(first), zip(*listed, strict=True), strict=True)
        return tuple.__new__(type(first), [add(column, name) for name, column in columns])
    if isinstance(first, Sequence) and not isinstance(first, (str, bytes)):
        return tuple(add(column, member) for column in zip(*listed, strict=True))
    if not isinstance(first, (int, float)):
        kind = next(base for base in type(first).__mro__ if base.__module__ == "builtins")
        what = f"member {member!r} is" if member else "values are"
        by_itself = "; sum one member by itself: sum(value.MEMBER for value in ...)"
        raise MapError(
            f"{what} of type {kind.__name__}, which has no sum{by_itself * bool(member)}"
        )
    return sum(listed)
