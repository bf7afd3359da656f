"""Records taken out of a buffer many at a time, as bytes and as arrays.

Records follow each other, each with a header that says how long it is. As long as the headers are
the same, the records lie at equal distances, and one numpy operation is enough for all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FEW = 8
"""So many words are compared one by one, which costs less than a call of numpy."""


class Row(NamedTuple):
    """``many`` records of ``length`` bytes: the first at ``offset``, and each ``stride`` on."""

    offset: int
    stride: int
    many: int
    length: int


@dataclass(frozen=True)
class Batch:
    """What was copied at one time, and the rows of records in it, in order."""

    data: bytes
    rows: list[Row]

    def offsets(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return where each record begins."""
        first, stride, many, _ = np.array(self.rows, np.int64).T
        zeroth = first - (np.cumsum(many) - many) * stride
        index: np.ndarray[Any, np.dtype[np.int64]] = np.arange(many.sum(), dtype=np.int64)
        index *= np.repeat(stride, many)
        index += np.repeat(zeroth, many)
        return index

    def array(self, form: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return the first bytes of each record, padding included, filled up with zeros."""
        size = form.itemsize
        if len(self.rows) == 1 and self.rows[0].length >= size:
            (row,) = self.rows
            one_row = np.ndarray(row.many, form, self.data, row.offset, (row.stride,))
            return np.array(one_row)
        offsets, sizes = self.offsets(), np.minimum(self.sizes(), size)
        found = np.zeros(len(offsets), form)
        octets = found.view(np.uint8).reshape(-1, size)
        for length in np.unique(sizes[sizes > 0]):
            of_length = np.flatnonzero(sizes == length)
            anywhere = np.ndarray(len(self.data) - length + 1, f"V{length}", self.data, 0, (1,))
            taken = anywhere[offsets[of_length]].view(np.uint8)
            octets[of_length, :length] = taken.reshape(-1, length)
        return found

    def sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return how many bytes each record has."""
        _, _, many, length = np.array(self.rows, np.int64).T
        return np.repeat(length, many)


class Records:
    """Records in order, of one batch or of several."""

    def __init__(self, batches: Sequence[Batch] = ()) -> None:
        self._batches = [batch for batch in batches if batch.rows]
        self._rows = [row for batch in self._batches for row in batch.rows]
        self._count = sum(row.many for row in self._rows)

    def __len__(self) -> int:
        return self._count

    def __add__(self, later: Records) -> Records:
        return Records([*self._batches, *later._batches])

    def __iter__(self) -> Iterator[bytes]:
        for batch in self._batches:
            data = batch.data
            for at, stride, many, length in batch.rows:
                for begin in range(at, at + many * stride, stride):
                    yield data[begin : begin + length]

    def __getitem__(self, index: int) -> bytes:
        at = range(self._count)[index]
        row = bisect_right(self._ends, at)
        batch = bisect_right(self._batch_ends, row)
        offset, stride, many, length = self._rows[row]
        begin = offset + (at - self._ends[row] + many) * stride
        return self._batches[batch].data[begin : begin + length]

    @property
    def shortest(self) -> int:
        """How many bytes the shortest record has; 0 when there is none."""
        return min((row.length for row in self._rows), default=0)

    @property
    def longest(self) -> int:
        """How many bytes the longest record has; 0 when there is none."""
        return max((row.length for row in self._rows), default=0)

    def sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return how many bytes each record has."""
        return np.concatenate([np.zeros(0, np.int64), *(b.sizes() for b in self._batches)])

    def array(self, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return the first bytes of each record as an array, padding included.

        Records that are shorter than the type are filled up with zeros.
        """
        size = dtype.itemsize
        if not size or not self._count:
            return np.zeros(self._count, dtype)
        arrays = [batch.array(np.dtype(f"V{size}")) for batch in self._batches]
        return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)).view(dtype)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(row.many for row in self._rows))

    @cached_property
    def _batch_ends(self) -> list[int]:
        return list(accumulate(len(batch.rows) for batch in self._batches))


def alike(words: memoryview, at: int, step: int, most: int, value: int) -> int:
    """Return how many words in a row have the ``value`` that the one at index ``at`` had.

    Of at most ``most`` words, which lie ``step`` apart; the first counts without a look, so that
    words may be written meanwhile.
    """
    count = 1
    while count < min(most, FEW):
        if words[at + count * step] != value:
            return count
        count += 1
    while count < most:
        begin, more = at + count * step, min(3 * count, most - count)
        same = np.asarray(words[begin : begin + more * step : step]) == value
        if not same.all():
            return count + int(same.argmin())
        count += more
    return count
