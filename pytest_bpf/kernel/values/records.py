"""C values as Python values that equal whatever is written as the same value.

``obj.maps["peers"][1] = {"addr": "192.0.2.1"}`` writes a struct; what is read is a `Record`, and
equal to that dict: it compares what the other value would be in C. So do arrays (`Elements`, equal
to lists), bytes (`Octets`, equal to addresses), text (`Text`), members of enums (`Enumerator`,
equal to their names) and numbers in network order (`NetworkInt`, equal to addresses).
"""

from __future__ import annotations

import enum
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_bpf.errors import ValueTypeError, near_matches
from pytest_bpf.kernel.btf.c_types import Enumeration, Struct, Type

if TYPE_CHECKING:
    from collections.abc import Callable


class CValue:  # noqa: PLW1641 (each class has the hash of its base, which is faster than one here)
    """What the classes of values share: their C type and the comparison."""

    __slots__ = ()
    _type: ClassVar[Type]
    _convert: ClassVar[Callable[[Any], Any]]
    """Returns what a value of Python is when it is written and read; may raise ValueTypeError."""
    _base: ClassVar[Any]
    """The type of Python whose comparison counts."""

    def __eq__(self, other: object) -> bool:
        base = self._base
        if type(other) is type(self):
            return bool(base.__eq__(self, other))
        try:
            if isinstance(other, base) and base.__eq__(self, other):
                return True
        except ValueError:  # of an array of numpy's in a tuple, which is neither true nor false
            pass
        try:
            return bool(base.__eq__(self, type(self)._convert(other)))
        except ValueTypeError:
            return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._type, self._base(self))


class Record(CValue, tuple[Any, ...]):
    """A struct's members in order, by attribute and by index; equal to the same tuple or dict."""

    __slots__ = ()
    _base = tuple
    __hash__ = tuple.__hash__
    _fields: ClassVar[tuple[str, ...]] = ()
    _name: ClassVar[str] = ""

    def _asdict(self) -> dict[str, Any]:
        """Return the members by name; nested records become dicts too."""
        return {
            name: value._asdict() if isinstance(value, Record) else value
            for name, value in zip(self._fields, self, strict=True)
        }

    def __getattr__(self, name: str) -> Any:
        hint = near_matches(name, self._fields)
        raise AttributeError(f"{self._name} has no member {name!r}{hint}")

    def __repr__(self) -> str:
        members = ", ".join(f"{n}={v!r}" for n, v in zip(self._fields, self, strict=True))
        return f"{self._name}({members})"


class Elements(CValue, tuple[Any, ...]):
    """The elements of an array; equal to a list of the same."""

    __slots__ = ()
    _base = tuple
    __hash__ = tuple.__hash__


class Octets(CValue, bytes):
    """``unsigned char[n]`` or bytes without a type; equal to an address of the same bytes."""

    __slots__ = ()
    _base = bytes
    __hash__ = bytes.__hash__


class NetworkInt(CValue, int):
    """``__be16``, ``__be32`` or ``__be64`` as the machine reads it; equal to such an address."""

    __slots__ = ()
    _base = int
    __hash__ = int.__hash__


class Text(str):
    """``char[n]`` up to its first NUL; ``bytes()`` of it are all ``n`` bytes.

    Written back it is all of them, too. Compared with bytes it is compared as these.
    """

    __slots__ = ("_raw",)
    _raw: bytes

    def __new__(cls, raw: bytes) -> Text:  # noqa: PYI034 (Self is 3.11)
        """Return the text that the bytes of a ``char[n]`` are."""
        text = super().__new__(cls, raw.split(b"\0", 1)[0].decode(errors="surrogateescape"))
        text._raw = raw
        return text

    def __bytes__(self) -> bytes:
        return self._raw

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (bytes, bytearray, memoryview, list, tuple)):
            try:
                return self._raw == bytes(other).ljust(len(self._raw), b"\0")
            except (TypeError, ValueError):
                return False
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Text, (self._raw,)


class Enumerator(enum.IntEnum):
    """A member of an enum; equal to its number and to its names."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return type(self).__members__.get(other) is self
        return bool(int.__eq__(self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return _rebuild, (_enums[type(self)], int(self))


_enums: dict[type[Any], Type] = {}
"""The C types of the classes that `enum_class` has made."""


@cache
def enum_class(c_type: Enumeration) -> type[Enumerator] | None:
    """Return the class of an enum's members; None when no name of them can be one in Python."""
    names = {name: value for name, value in c_type.members if not _reserved(name)}
    if not names:
        return None
    functional: Any = Enumerator
    made: type[Enumerator] = functional(c_type.name or "enum", names)
    _enums[made] = c_type
    return made


def _reserved(name: str) -> bool:
    """Say whether Python's enum cannot have a member of this name."""
    return name in {"", "mro"} or (name.startswith("_") and name.endswith("_"))


@cache
def value_class(c_type: Type, base: type[Any], convert: Callable[[Any], Any]) -> type[Any]:
    """Return the class of a type's values; ``base`` is one of the above."""
    name = base.__name__
    fields: tuple[str, ...] = ()
    if isinstance(c_type, Struct):
        name = c_type.name or "struct"
        fields = tuple(member.name for member in c_type.flat_members())
    body: dict[str, Any] = {field: property(itemgetter(i)) for i, field in enumerate(fields)}
    body |= {"__slots__": (), "__module__": __name__, "_type": c_type}
    body |= {"_convert": staticmethod(convert), "_fields": fields, "_name": name}
    return type(name, (base,), body)


def _rebuild(c_type: Type, plain: Any) -> Any:
    """Return a value that was pickled."""
    from pytest_bpf.kernel.values.decoding import class_of  # noqa: PLC0415 (it imports this)

    return class_of(c_type)(plain)
