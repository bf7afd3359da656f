"""From inputs that show something to the smallest that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.fuzz.inputs import Form

MOST = 6_000
"""The most inputs that are given to shrink others: tries, each of one or more inputs."""

SMALL, SMALL_IN_PACKETS = 4096, 64
"""Numbers below this are all tried, the smallest first."""


class _Shrinker:
    def __init__(self, shows: Callable[[list[bytes]], bool], shape: Form) -> None:
        self._shows, self._shape = shows, shape
        self._given = 0

    def shows(self, sequence: list[bytes]) -> bool:
        self._given += len(sequence)
        if self._given > MOST:
            return False
        return self._shows(sequence)

    def fewer(self, sequence: list[bytes]) -> list[bytes]:
        """Leave out inputs, many at first."""
        if self.shows(sequence[-1:]):
            return sequence[-1:]
        size = len(sequence) // 2
        while size:
            at = 0
            while at < len(sequence):
                rest = sequence[:at] + sequence[at + size :]
                if rest and self.shows(rest):
                    sequence = rest
                else:
                    at += size
            size //= 2
        return sequence

    def smaller(self, sequence: list[bytes], index: int) -> list[bytes]:
        """Make one input shorter, emptier, and its numbers smaller."""

        def put(data: bytes) -> bool:
            nonlocal sequence
            if data == sequence[index]:
                return False
            changed = [*sequence[:index], data, *sequence[index + 1 :]]
            if not self.shows(changed):
                return False
            sequence = changed
            return True

        low = self._shape.fixed + self._shape.least
        step = len(sequence[index]) - low
        while step > 0:
            shorter = sequence[index][: max(low, len(sequence[index]) - step)]
            if len(shorter) == len(sequence[index]) or not put(shorter):
                step //= 2
        size = 1 << max(0, len(sequence[index]) - 1).bit_length()
        while size:
            for at in range(0, len(sequence[index]), size):
                data = sequence[index]
                if any(data[at : at + size]):
                    put(data[:at] + bytes(len(data[at : at + size])) + data[at + size :])
            size //= 2
        fixed = len(sequence[index]) if self._shape.kind != "packet" else self._shape.fixed
        for width, order in (8, "little"), (4, "little"), (4, "big"), (2, "big"), (1, "big"):
            for at in range(0, len(sequence[index]) - width + 1, width):
                if (order == "little") == (at < fixed):
                    self._lower(lambda: sequence[index], put, at, width, order)
        return sequence

    def _lower(
        self,
        current: Callable[[], bytes],
        put: Callable[[bytes], bool],
        at: int,
        width: int,
        order: str,
    ) -> None:
        """Lower the number at one place as far as it goes."""

        def number() -> int:
            return int.from_bytes(current()[at : at + width], order)  # type: ignore[arg-type]

        def with_number(value: int) -> bytes:
            data = current()
            return data[:at] + value.to_bytes(width, order) + data[at + width :]  # type: ignore[arg-type]

        step = number()
        while step:
            if number() < step or not put(with_number(number() - step)):
                step //= 2
        small = SMALL if order == "little" else SMALL_IN_PACKETS
        for value in range(1, min(number(), small)):
            if put(with_number(value)):
                break


def shrink(sequence: list[bytes], shows: Callable[[list[bytes]], bool], shape: Form) -> list[bytes]:
    """Return the smallest inputs that still show it, in their order; after `MOST` it ends."""
    shrinker = _Shrinker(shows, shape)
    sequence = shrinker.fewer(list(sequence))
    before: list[bytes] = []
    while before != sequence:
        before = sequence
        for index in range(len(sequence)):
            sequence = shrinker.smaller(sequence, index)
    return sequence
