"""Arguments of wrong types end in one sentence about the argument, whatever failed because of it.

Nothing is checked beforehand: a call that works costs nothing more. When one fails with an error
that is not ours, its arguments are held against the annotations of what was called.
"""

from __future__ import annotations

import functools
import inspect
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ctypes import ArgumentError
from os import PathLike
from types import FunctionType
from typing import Any, TypeVar, cast

from pytest_bpf.errors import BpfError, ValueTypeError

F = TypeVar("F", bound="Callable[..., Any]")
C = TypeVar("C", bound=type)

FOREIGN = (
    *(TypeError, AttributeError, ValueError, LookupError, OSError, OverflowError, RecursionError),
    *(struct.error, ArgumentError),
)
"""What Python and its library raise for arguments of wrong types."""

PLAIN = (int, float, str, bytes, bytearray, list, tuple, dict, set, type, FunctionType, type(None))
"""Types that no class or protocol of ours stands for; so does `object` itself."""

TYPES: dict[str, Any] = {
    "int": int,
    "float": (int, float),
    "str": str,
    "bytes": (bytes, bytearray, memoryview),
    "None": type(None),
    "Path": PathLike,
    "PathLike": PathLike,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "Mapping": Mapping,
    "Iterable": Iterable,
    "Collection": Iterable,
    "Sequence": Sequence,
    "Callable": Callable,
}
"""The types that annotations name, with what is taken for them."""

WORDS = {
    "Source": "a path, or C text",
    "Source | Sequence[Source]": "a path, C text, or a list of these",
}
"""Annotations that are names of ours, in words."""

OURS = frozenset(
    {
        "Cache",
        "Cgroup",
        "Compiler",
        "Interface",
        "Layout",
        "Link",
        "Map",
        "MapTemplate",
        "Namespace",
    }
    | {"Object", "Packet", "Program", "Source", "Topology"}
)
"""What is no protocol of ours: another thing of ours does not stand for one."""

PACKAGE = __name__.partition(".")[0]
ELEMENTS = frozenset({"list", "tuple", "Iterable", "Collection", "Sequence"})
MAPPINGS = frozenset({"Mapping", "dict"})
LONGEST_NAME = 255
SHOWN = 60


def checked(function: F) -> F:
    """Let a function say which of its arguments has a wrong type, as `ValueTypeError`."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except FOREIGN as error:
            if isinstance(error, BpfError):
                raise
            fault = find_fault(function, args, kwargs)
            if fault is None:
                raise
            raise ValueTypeError(fault) from None

    return cast("F", call)


def checked_methods(cls: C) -> C:
    """Let the public methods of a class say the same; dunder methods see to that themselves."""
    ours = [base for base in cls.__mro__ if base.__module__.partition(".")[0] == PACKAGE]
    members = {name: member for base in reversed(ours) for name, member in vars(base).items()}
    for name, member in members.items():
        if not name.startswith("_") or name == "__call__":
            if isinstance(member, FunctionType):
                setattr(cls, name, checked(member))
            elif isinstance(member, (classmethod, staticmethod)):
                setattr(cls, name, type(member)(checked(member.__func__)))
    return cls


def find_fault(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    """Return what is wrong with the arguments of a call, as a sentence; None when nothing is."""
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # too many, too few: Python's own words say it
        return None
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        annotation = parameter.annotation
        if not isinstance(annotation, str) or name in {"self", "cls"}:
            continue
        if annotation.endswith((".args", ".kwargs")):  # those of a function that is handed over
            continue
        values = [value]
        if parameter.kind is parameter.VAR_POSITIONAL:
            values = list(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            if annotation.startswith("Unpack["):  # of a TypedDict: each has a type of its own
                continue
            values = list(value.values())
        for each in values:
            if fault := _fault(each, annotation):
                return f"{function.__qualname__}(): {name} {fault}"
    return None


def _fault(value: Any, annotation: str) -> str | None:
    shown = repr(value).encode("ascii", "backslashreplace").decode()
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    if not fits(value, annotation):
        return (
            f"is {shown} ({type(value).__name__}), and must be {WORDS.get(annotation, annotation)}"
        )
    if not isinstance(value, str):
        return None
    if "\0" in value:
        return f"is {shown}, which holds a NUL character"
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        return f"is {shown}, which is no text that can be encoded (UTF-8)"
    if len(value) > LONGEST_NAME and "\n" not in value:
        return f"has {len(value)} characters, which is too long"
    return None


def fits(value: Any, annotation: str) -> bool:
    """Say whether a value is what an annotation says; also for one that says what is not known."""
    return any(_fits_one(value, part) for part in _split(annotation, "|"))


def _fits_one(value: Any, annotation: str) -> bool:
    base, _, inner = annotation.partition("[")
    name = base.rpartition(".")[2].strip("\"' ")
    if name == "bool":
        return isinstance(value, bool) or (isinstance(value, int) and value in {0, 1})
    if name in TYPES:
        if not isinstance(value, TYPES[name]):
            return False
        element, *values = (*_split(inner.rpartition("]")[0], ","), "")
        if element and name in ELEMENTS and isinstance(value, (list, tuple, bytes, set, dict)):
            return all(fits(each, element) for each in value)
        if element and name in MAPPINGS and isinstance(value, dict):
            return all(fits(k, element) and fits(v, values[0]) for k, v in value.items())
        return True
    if name == "Literal":
        return repr(value) in {each.replace('"', "'") for each in _split(inner[:-1], ",")}
    if name in {"Any", "object"} or len(name) <= 2:
        return True
    if name in OURS and type(value).__module__.partition(".")[0] == PACKAGE:
        return name in {base.__name__ for base in type(value).__mro__}
    return not isinstance(value, PLAIN) and type(value) is not object


def _split(text: str, separator: str) -> Iterator[str]:
    """Yield the parts of an annotation between separators outside of brackets."""
    depth = start = 0
    for at, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == separator and not depth:
            yield text[start:at].strip()
            start = at + 1
    yield text[start:].strip()
