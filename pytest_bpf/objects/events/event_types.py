"""How the bytes of events become values: of one type, or of one of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, Union

from pytest_bpf.errors import MapError, UnknownNameError
from pytest_bpf.kernel.btf.c_types import Enumeration, Int, Struct
from pytest_bpf.kernel.values.codec import c_name
from pytest_bpf.kernel.values.decoding import decoder
from pytest_bpf.objects.events.tails import fit, flexible_member, min_size

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf.c_types import Member, Type
    from pytest_bpf.kernel.ringbuf.rows import Records
    from pytest_bpf.objects.types import Types

Choice = Union[  # noqa: UP007 (runs on 3.10)
    str, Sequence[str], Mapping[int, str], Callable[[bytes], "str | None"], None
]
"""What `Map.events` takes as a type: a name, several by size or by tag, or a function."""

PERF_PADDING = 8
"""Perf buffers round the length of an event up to less than this many bytes more."""


class EventTypes(Protocol):
    """What a reader needs to know of the types of its events."""

    @property
    def size(self) -> int:
        """The size of the longest type in bytes, 0 when there is none."""

    def misfits(self, records: Records) -> Mapping[int, str]:
        """Return why events cannot be decoded, by their index."""

    def types(self, records: Records) -> list[Type | None]:
        """Return the type of each event; None stands for bytes."""

    @property
    def one(self) -> Type | None:
        """The type that all events have, None when they are bytes or of several."""


@dataclass(frozen=True, eq=False)
class OneType:
    """Events of one type, or bytes. ``short`` says whether the program may cut them off."""

    one: Type | None
    short: Callable[[], bool] = lambda: False

    @property
    def size(self) -> int:
        """The size of the type in bytes."""
        return self.one.size if self.one else 0

    def misfits(self, records: Records) -> Mapping[int, str]:
        """Return why events cannot be decoded, by their index: they are too short."""
        c_type = self.one
        if c_type is None or not len(records) or records.shortest >= min_size(c_type):
            return {}
        if self.short():
            return {}
        sizes = enumerate(records.sizes().tolist())
        return {index: _too_short(c_type, size) for index, size in sizes if size < min_size(c_type)}

    def types(self, records: Records) -> list[Type | None]:
        """Return the type of each event."""
        return [self.one] * len(records)


@dataclass(frozen=True, eq=False)
class SeveralTypes:
    """Events of several types, each chosen by ``choose``, which is given some events.

    It returns a type for each of them, or why it has none.
    """

    choose: Callable[[Records], Sequence[Type | str | None]]
    size: int
    one: None = None

    def misfits(self, records: Records) -> Mapping[int, str]:
        """Return why events cannot be decoded, by their index."""
        sizes = records.sizes().tolist()
        misfits: dict[int, str] = {}
        for index, (c_type, size) in enumerate(zip(self.choose(records), sizes, strict=True)):
            if isinstance(c_type, str):
                misfits[index] = c_type
            elif c_type is not None and size < min_size(c_type):
                misfits[index] = _too_short(c_type, size)
        return misfits

    def types(self, records: Records) -> list[Type | None]:
        """Return the type of each event."""
        return [None if isinstance(c_type, str) else c_type for c_type in self.choose(records)]


def event_types(
    types: Types, choice: Choice, tag: str | None, *, name: str, kind: str, declared: Type | None
) -> EventTypes:
    """Return the types of a map's events: as chosen, as declared, or as its programs write them.

    Raises what `several_types` does.
    """
    if choice is not None and not isinstance(choice, str):
        label = f"map {name!r}"
        return several_types(types, choice, tag, label, padded=kind == "perf_event_array")
    if tag is not None:
        raise MapError(f"map {name!r}: tag={tag!r} goes with a mapping from its values to types")
    if choice is not None:
        one: Type | None = types.find(choice)
    elif (
        declared is not None
        and declared.size
        and (kind == "ringbuf" or isinstance(declared, Struct))
    ):
        one = declared
    else:
        from pytest_bpf.objects.events.inference import inferred_types  # noqa: PLC0415 (seldom)

        inferred = inferred_types(types, name)
        one = inferred[0] if len(inferred) == 1 else None

    def short() -> bool:
        from pytest_bpf.objects.events.inference import writes_short  # noqa: PLC0415 (seldom)

        return one is not None and writes_short(types, name, one)

    return OneType(one, short)


def several_types(
    types: Types, choice: Choice, tag: str | None, label: str, *, padded: bool
) -> SeveralTypes:
    """Return types that are chosen for each event: by size, by a tag member, or by a function.

    ``padded`` says that lengths are rounded up, as in perf buffers. Raises `MapError` when the
    choice is not clear, `UnknownNameError` for a name that is no type.
    """
    if callable(choice):
        if tag is not None:
            raise MapError(f"{label}: tag={tag!r} goes with a mapping from its values to types")
        return SeveralTypes(_by_function(types, choice), 0)
    names = list(choice.values()) if isinstance(choice, Mapping) else []
    if isinstance(choice, (list, tuple)):
        names = list(choice)
    if not names or not all(isinstance(name, str) for name in names):
        raise MapError(
            f"{label}: {choice!r} names no types of events: give one name, a list of names, a "
            "mapping from the values of tag= to names, or a function"
        )
    chosen = [types.find(name) for name in names]
    size = max(c_type.size for c_type in chosen)
    if isinstance(choice, Mapping):
        member = _tag_member(label, tag, dict(zip(names, chosen, strict=True)))
        by_value = dict(zip(choice, chosen, strict=True))
        return SeveralTypes(_by_tag(tag or "", member, by_value), size)
    if tag is not None:
        raise MapError(f"{label}: tag={tag!r} goes with a mapping from its values to types")
    return SeveralTypes(_by_size(label, chosen, padded=padded), size)


def _by_size(
    label: str, chosen: Sequence[Type], *, padded: bool
) -> Callable[[Records], Sequence[Type | str | None]]:
    ordered = sorted(chosen, key=lambda c_type: c_type.size, reverse=True)
    for one, other in pairwise(ordered):
        if one.size - other.size < (PERF_PADDING if padded else 1):
            raise MapError(
                f"{label}: {c_name(one)} ({one.size} bytes) and {c_name(other)} ({other.size}) "
                "cannot be told apart by size: give a mapping and tag=, or a function"
            )
    slack = PERF_PADDING if padded else 1
    names = ", ".join(f"{c_name(c_type)} ({c_type.size})" for c_type in ordered)

    def choose(size: int) -> Type | str:
        for c_type in ordered:
            if flexible_member(c_type) and size >= min_size(c_type):
                return c_type
            if 0 <= size - c_type.size < slack:
                return c_type
        return f"an event of {size} bytes has the size of none of {names}"

    def choose_all(records: Records) -> Sequence[Type | str | None]:
        by_size = {size: choose(size) for size in records.lengths}
        return [by_size[size] for size in records.sizes().tolist()]

    return choose_all


def _by_tag(
    tag: str, member: Member, by_value: Mapping[int, Type]
) -> Callable[[Records], Sequence[Type | str | None]]:
    decode, at, end = decoder(member.type), member.bit_offset // 8, member.bit_offset // 8
    end += member.type.size
    by_name = {getattr(value, "name", value): c_type for value, c_type in by_value.items()}
    values = ", ".join(str(value) for value in by_value)

    def choose(raw: bytes) -> Type | str:
        if len(raw) < end:
            return f"an event of {len(raw)} bytes ends before its tag {tag!r}"
        value = decode(raw, at)
        c_type = by_value.get(value) or by_name.get(getattr(value, "name", value))
        return c_type or f"an event has {tag} {value!r}, which is none of {values}"

    return lambda records: [choose(raw) for raw in records]


def _by_function(
    types: Types, function: Callable[[bytes], str | None]
) -> Callable[[Records], Sequence[Type | str | None]]:
    def choose(raw: bytes) -> Type | str | None:
        name = function(raw)
        return types.find(name) if name is not None else None

    return lambda records: [choose(raw) for raw in records]


def _tag_member(label: str, tag: str | None, types: Mapping[str, Type]) -> Member:
    """Return the member that says which type an event has: the same in all of them."""
    if tag is None:
        raise MapError(f"{label}: say by tag= which member has the values {list(types)} go by")
    members = set()
    for name, c_type in types.items():
        flat = list(c_type.flat_members()) if isinstance(c_type, Struct) else []
        member = next((m for m in flat if m.name == tag), None)
        if member is None:
            raise UnknownNameError(f"{label}: {name} has no member {tag!r} to go by")
        members.add(member)
    one = members.pop()
    if any((m.bit_offset, m.type.size) != (one.bit_offset, one.type.size) for m in members):
        raise MapError(f"{label}: {tag!r} does not lie at the same place in {', '.join(types)}")
    if one.bit_size or not isinstance(one.type, (Int, Enumeration)):
        raise MapError(f"{label}: {tag!r} is no integer or enum that types can go by")
    return one


def decode(types: EventTypes, records: Records) -> list[Any]:
    """Return events as Python values, in order: of their types, or `RawEvent`."""
    if types.one is not None:
        return _decode_one(types.one, records)
    chosen = types.types(records)
    values: list[Any] = [
        RawEvent(raw) if c_type is None else None
        for raw, c_type in zip(records, chosen, strict=True)
    ]
    indexes: dict[int, list[int]] = {}
    for index, c_type in enumerate(chosen):
        if c_type is not None:
            indexes.setdefault(id(c_type), []).append(index)
    for places in indexes.values():
        c_type = chosen[places[0]]
        assert c_type is not None
        for place, value in zip(places, _decode_one(c_type, records.select(places)), strict=True):
            values[place] = value
    return values


def _decode_one(c_type: Type, records: Records) -> list[Any]:
    from pytest_bpf.kernel.values.columns import decode_all  # noqa: PLC0415 (numpy)
    from pytest_bpf.kernel.values.dtypes import dtype  # noqa: PLC0415

    if flexible_member(c_type) is None and records.shortest >= c_type.size:
        return decode_all(c_type, records.array(dtype(c_type)))
    decoders = {length: decoder(fit(c_type, length)) for length in records.lengths}
    return [decoders[len(raw)](raw, 0) for raw in records]


def _too_short(c_type: Type, size: int) -> str:
    return f"an event of {size} bytes is no {c_name(c_type)} ({min_size(c_type)} bytes)"


class RawEvent(bytes):
    """An event whose type the object does not say."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"an event of unknown type has no member {name!r}: say its type by "
            "__type(value, struct ...) in the map, or by events('struct ...'); several types are "
            "chosen by a list, a tag= or a function"
        )
