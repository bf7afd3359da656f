"""The fields in which two packets differ."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from pytest_bpf.kernel.layers.table import walk
from pytest_bpf.kernel.layers.text import format_layer, format_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.kernel.layers.packet import Packet
    from pytest_bpf.kernel.layers.table import Walk
    from pytest_bpf.kernel.layers.values import Option

SHOWN = 8
"""Bytes that are shown where two payloads begin to differ."""


def differences(left: Packet, right: Packet) -> list[str]:
    """Return a line for each field in which ``left`` differs: ``"ip.ttl: 64, not 63"``."""
    lines = [] if left.first == right.first else [f"first layer: {left.first}, not {right.first}"]
    return lines + compare(left.data, right.data, left.first, right.first)


def compare(left: bytes, right: bytes, first: str, other: str, path: str = "") -> list[str]:
    """Compare two frames; ``first`` and ``other`` are the layers that they begin with."""
    if left == right:
        return []
    one, two = walk(left, first.rstrip("?")), walk(right, other.rstrip("?"))
    result: list[str] = []
    if one.names == two.names:
        for number in range(len(one.names)):
            result += _fields(path, left, one, number, right, two, number)
    else:
        result += _aligned(path, left, one, right, two)
    if one.inner and two.inner:
        pair = left[one.begin : one.end], right[two.begin : two.end]
        result += compare(*pair, one.inner, two.inner, f"{path}inner.")
    else:
        result += _bytes(path + "payload", left[one.begin : one.end], right[two.begin : two.end])
    result += _bytes(path + "padding", left[one.end :], right[two.end :])
    if one.cut != two.cut:
        result += [
            f"{side}: {path}{cut}"
            for side, cut in zip(SIDES, (one.cut, two.cut), strict=True)
            if cut
        ]
    return result or [f"{path}bytes: {left.hex(' ')}, not {right.hex(' ')}"]


SIDES = ("left", "right")


def label(names: Sequence[str], number: int) -> str:
    """Name a layer; the second of its name is ``vlan[1]``."""
    earlier = names[:number].count(names[number])
    return f"{names[number]}[{earlier}]" if earlier else names[number]


def _aligned(path: str, left: bytes, one: Walk, right: bytes, two: Walk) -> list[str]:
    """Compare layers of the same names, and say which are on one side alone."""
    result = []
    matcher = SequenceMatcher(None, one.names, two.names, autojunk=False)
    for what, a, b, c, d in matcher.get_opcodes():
        if what == "equal":
            for n, m in zip(range(a, b), range(c, d), strict=True):
                result += _fields(path, left, one, n, right, two, m)
            continue
        for side, data, steps, begin, end in (
            ("left", left, one, a, b),
            ("right", right, two, c, d),
        ):
            for n in range(begin, end):
                fields = format_layer(steps.read(data, n))
                result.append(f"{path}{label(steps.names, n)}: only on the {side}: {fields}")
    return result


def _fields(  # noqa: PLR0917 (positional arguments are faster)
    path: str, left: bytes, one: Walk, n: int, right: bytes, two: Walk, m: int
) -> list[str]:
    """Compare the ``n``-th layer of one frame with the ``m``-th of the other."""
    raw = left[one.edges[n] : one.edges[n + 1]]
    raw_other = right[two.edges[m] : two.edges[m + 1]]
    if raw == raw_other:
        return []
    mine, yours = one.read(left, n), two.read(right, m)
    place = path + label(one.names, n)
    result = []
    for field, a, b in zip(mine._fields, mine, yours, strict=True):
        if a is b or a == b:
            continue
        if field == "options":
            result += _options(f"{place}.options", a, b)
        else:
            result.append(
                f"{place}.{field}: {format_value(field, a)}, not {format_value(field, b)}"
            )
    return result or [f"{place}: {raw.hex(' ')}, not {raw_other.hex(' ')}"]


def _options(place: str, left: tuple[Option, ...], right: tuple[Option, ...]) -> list[str]:
    """Compare options one by one where they are the same ones, else their names."""
    names, others = [o.name for o in left], [o.name for o in right]
    if names != others:
        return [f"{place}: {', '.join(names) or 'none'}, not {', '.join(others) or 'none'}"]
    return [
        f"{place}.{mine.name}: {_value(mine, yours)}, not {_value(yours, mine)}"
        for mine, yours in zip(left, right, strict=True)
        if mine != yours
    ]


def _value(option: Option, other: Option) -> str:
    if option.value == other.value:
        return option.raw.hex(" ")
    return format_value("", option.value)


def _bytes(place: str, left: bytes, right: bytes) -> list[str]:
    """Say where two runs of bytes begin to differ, and how their lengths do."""
    if left == right:
        return []
    same = min(len(left), len(right))
    pairs = zip(left, right, strict=False)
    at = next((at for at, (a, b) in enumerate(pairs) if a != b), same)
    if at == same:
        return [f"{place}: {len(left)} bytes, not {len(right)}"]
    shown = f"{left[at : at + SHOWN].hex(' ')}, not {right[at : at + SHOWN].hex(' ')}"
    sizes = "" if len(left) == len(right) else f" ({len(left)} bytes, not {len(right)})"
    return [f"{place}[{at}:]: {shown}{sizes}"]
