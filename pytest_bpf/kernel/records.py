"""A struct's value in Python: a tuple whose elements have names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from operator import itemgetter
from typing import Any, ClassVar

from pytest_bpf.errors import near_matches


class Record(tuple[Any, ...]):
    """A struct's members in order, by attribute and by index; equal to the same tuple or dict."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _name: ClassVar[str] = ""

    def _asdict(self) -> dict[str, Any]:
        """Return the members by name; nested records become dicts too."""
        return {
            name: value._asdict() if isinstance(value, Record) else value
            for name, value in zip(self._fields, self, strict=True)
        }

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return dict(zip(self._fields, self, strict=True)) == other
        return tuple.__eq__(self, other) if isinstance(other, tuple) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return tuple.__hash__(self)

    def __getattr__(self, name: str) -> Any:
        hint = near_matches(name, self._fields)
        raise AttributeError(f"{self._name} has no member {name!r}{hint}")

    def __repr__(self) -> str:
        members = ", ".join(f"{n}={v!r}" for n, v in zip(self._fields, self, strict=True))
        return f"{self._name}({members})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _record, (self._name, self._fields, tuple(self))


@cache
def record_class(name: str, fields: tuple[str, ...]) -> type[Record]:
    """Return the `Record` class of a struct with these members."""
    members: dict[str, Any] = {f: property(itemgetter(i)) for i, f in enumerate(fields)}
    body = {"__slots__": (), "_fields": fields, "_name": name or "struct", **members}
    return type(name or "struct", (Record,), body)


def _record(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Record:
    return tuple.__new__(record_class(name, fields), values)
