"""New inputs from earlier ones: random changes, constants of the program, what it compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs.flow import ALU, ALU64, JMP, JMP32, LDDW, is_conditional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from random import Random

    from pytest_bpf.fuzz.inputs import Form
    from pytest_bpf.kernel.programs.counters import Build
    from pytest_bpf.kernel.programs.flow import Flow

EDGES = tuple(
    n.to_bytes(width, order)  # type: ignore[arg-type]
    for width in (1, 2, 4, 8)
    for n in (0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1)
    for order in (("little",) if width == 1 else ("little", "big"))
)
"""Numbers at which programs err: the ends of each width."""

LENGTHS = (64, 128, 256, 512, 1024, 1500, 1514, 1518, 2048, 3000)
"""Lengths of packets at which programs err."""

PLACES = 48
"""How many places of an input one operand is put into."""

POINTERS, NEGATIVE = 0xFFFF << 48, 2**64 - 2**32
"""Where the kernel's addresses begin and end; behind them are small negative numbers."""


def constants(program: Flow) -> set[bytes]:
    """Return what a program compares with, adds, and masks by, and its neighbours, as bytes."""
    numbers = set()
    for at, insn in enumerate(program.instructions):
        if at in program.second:
            continue
        kind = insn.code & 7
        compares = is_conditional(insn) and kind in {JMP, JMP32}
        if insn.code == LDDW and insn.of == 0:
            high = program.instructions[at + 1].value
            numbers.add((high & 0xFFFFFFFF) << 32 | insn.value & 0xFFFFFFFF)
        elif (compares or kind in {ALU, ALU64}) and not insn.code & 8:
            numbers.add(insn.value % 2**64)
    return {token for number in numbers for token in tokens(number)}


def tokens(number: int) -> Iterator[bytes]:
    """Yield a number and its neighbours in every width that holds it, in both byte orders."""
    for width in (1, 2, 4, 8):
        if number < 256**width or number >= 2**64 - 256**width // 2:
            for near in (number - 1, number, number + 1):
                low = near % 256**width
                yield low.to_bytes(width, "little")
                if width > 1:
                    yield low.to_bytes(width, "big")


def mutator(random: Random, shape: Form, words: Sequence[bytes]) -> Callable[..., bytes]:
    """Return a function that makes a new input of one of a corpus."""
    draw = random.random
    parts = shape.parts
    fit, fixed, varies = shape.fit, shape.fixed, shape.least != shape.most

    def resized(data: bytearray, at: int, choice: float) -> bytearray:
        if choice < 0.93:
            return data[:at]
        if choice < 0.96:
            return data + bytes(int(draw() * 64))
        if choice < 0.98:  # a part once more, as options and headers come one after another
            part = data[at : at + 1 + int(draw() * 16)]
            return data[:at] + part * (1 + int(draw() * 8)) + data[at:]
        length = fixed + LENGTHS[int(draw() * len(LENGTHS))]
        return data[:length].ljust(length, b"\0")

    def mutate(corpus: Sequence[bytes]) -> bytes:
        data = bytearray(corpus[int(draw() * len(corpus))])
        for _ in range(1 << int(draw() * 3)):
            size = len(data)
            if not size:
                break
            choice, at = draw(), int(draw() * size)
            if choice < 0.25:
                data[at] ^= 1 << int(draw() * 8)
            elif choice < 0.40:
                data[at] = int(draw() * 256)
            elif choice < 0.50:
                edge = EDGES[int(draw() * len(EDGES))]
                data[at : at + len(edge)] = edge
            elif choice < 0.55 and words and parts:
                part = parts[int(draw() * len(parts))]
                word = words[int(draw() * len(words))].ljust(8, b"\0")[: part.size]
                data[part.start : part.start + len(word)] = word
            elif choice < 0.84 and words:
                word = words[int(draw() * len(words))]
                data[at : at + len(word)] = word
            elif choice < 0.90:
                other = corpus[int(draw() * len(corpus))]
                data[at:] = other[at:] if varies else other[at:size]
            elif varies and at >= fixed:
                data = resized(data, at, choice)
            elif size >= 8:
                at = at // 8 * 8
                data[at : at + 8] = int(draw() * 2 ** (1 + int(draw() * 63))).to_bytes(8, "little")
            if not varies and len(data) != size:
                del data[size:]
        return fit(data)

    return mutate


def hints(
    made: Build, operands: Iterable[tuple[int, int]], data: bytes, shape: Form
) -> list[bytes]:
    """Return inputs in which one operand of a comparison stands in the place of the other."""
    result: dict[bytes, None] = {}
    for at, (left, right) in zip(made.places, operands, strict=True):
        if left == right:
            continue
        pointers = [POINTERS <= operand < NEGATIVE for operand in (left, right)]
        if all(pointers):
            for size in _lengths(left - right, data, shape):
                result[size] = None
        if any(pointers):  # an address is no hint, and another one each time
            continue
        narrow = made.flow.instructions[at].code & 7 == JMP32
        mask = 2**32 - 1 if narrow else 2**64 - 1
        for have, want in ((left & mask, right & mask), (right & mask, left & mask)):
            for changed in _replaced(have, want, data):
                result[shape.fit(bytearray(changed))] = None
    return list(result)


def _lengths(distance: int, data: bytes, shape: Form) -> Iterator[bytes]:
    """Yield inputs as much longer or shorter as two pointers are apart: the packet's bounds."""
    if shape.kind == "packet" and abs(distance) < 4096:
        for size in {
            len(data) + abs(distance),
            len(data) - abs(distance),
            len(data) + distance - 1,
        }:
            if shape.fixed < size:
                yield shape.fit(bytearray(data[:size].ljust(size, b"\0")))


def _replaced(have: int, want: int, data: bytes) -> Iterator[bytes]:
    for width in (8, 4, 2, 1):
        low, new = have % 256**width, want % 256**width
        fits = {0, (1 << (64 - 8 * width)) - 1}
        if have >> 8 * width not in fits or want >> 8 * width not in fits:
            continue
        if (not low and have) or low == new:
            continue
        for order in ("little", "big") if width > 1 else ("little",):
            old, other = (n.to_bytes(width, order) for n in (low, new))
            for at in _places(data, old):
                yield data[:at] + other + data[at + width :]


def _places(data: bytes, old: bytes) -> Iterator[int]:
    """Yield where some bytes stand; of zeros, which stand everywhere, the aligned places."""
    step = 1 if any(old) else min(2, len(old))
    at, count = data.find(old), 0
    while at >= 0 and count < PLACES:
        if at % step == 0:
            yield at
            count += 1
        at = data.find(old, at + 1)
