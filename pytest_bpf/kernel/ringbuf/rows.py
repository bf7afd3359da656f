"""Records of a buffer, many at a time, as bytes and as arrays.

Records follow each other, each with a header that says how long it is. Records with equal
headers lie at equal distances, and one numpy operation handles all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FEW = 8
"""Up to this many words are compared one by one: it costs less than a call of numpy."""


class Row(NamedTuple):
    """``many`` records of ``length`` bytes: the first at ``offset``, and each ``stride`` on."""

    offset: int
    stride: int
    many: int
    length: int


@dataclass(frozen=True, eq=False)
class RowBatch:
    """The bytes of one copy, and the rows of records in it, in order.

    ``misfit`` says that its records do not fit the type that they were read as.
    """

    data: bytes
    rows: list[Row]
    misfit: bool = False

    @property
    def count(self) -> int:
        """How many records it has."""
        return sum(row.many for row in self.rows)

    def split(self, misfits: Sequence[int]) -> list[RowBatch]:
        """Return batches of consecutive records that fit, and of those that do not, in order.

        ``misfits`` are the indexes of the records that do not fit.
        """
        edges = sorted({0, *misfits, *(index + 1 for index in misfits), self.count})
        parts = [self._part(begin, end) for begin, end in pairwise(edges)]
        bad = set(misfits)
        return [replace(part, misfit=at in bad) for part, at in zip(parts, edges, strict=False)]

    def reorder(self, order: np.ndarray[Any, np.dtype[np.int64]]) -> RowBatch:
        """Return the same records in another order."""
        offsets, sizes = self.offsets()[order], self.sizes()[order]
        if sizes.size and sizes[0] and (sizes == sizes[0]).all():
            length = int(sizes[0])
            anywhere = np.ndarray(len(self.data) - length + 1, f"V{length}", self.data, 0, (1,))
            return RowBatch(anywhere[offsets].tobytes(), [Row(0, length, len(order), length)])
        pairs = zip(offsets.tolist(), sizes.tolist(), strict=True)
        return RowBatch(self.data, [Row(offset, size or 1, 1, size) for offset, size in pairs])

    def _part(self, begin: int, end: int) -> RowBatch:
        rows, first = [], 0
        for row in self.rows:
            low, high = max(begin - first, 0), min(end - first, row.many)
            if low < high:
                rows.append(row._replace(offset=row.offset + low * row.stride, many=high - low))
            first += row.many
        return replace(self, rows=rows)

    def offsets(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return where each record begins."""
        first, stride, many, _ = np.array(self.rows, np.int64).T
        zeroth = first - (np.cumsum(many) - many) * stride
        index: np.ndarray[Any, np.dtype[np.int64]] = np.arange(many.sum(), dtype=np.int64)
        index *= np.repeat(stride, many)
        index += np.repeat(zeroth, many)
        return index

    def array(self, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return the first bytes of each record, padding included, filled up with zeros."""
        size = dtype.itemsize
        if len(self.rows) == 1 and self.rows[0].length >= size:
            (row,) = self.rows
            view = np.ndarray(row.many, dtype, self.data, row.offset, (row.stride,))
            return np.array(view)
        offsets, sizes = self.offsets(), np.minimum(self.sizes(), size)
        records = np.zeros(len(offsets), dtype)
        octets = records.view(np.uint8).reshape(-1, size)
        for length in np.unique(sizes[sizes > 0]):
            indexes = np.flatnonzero(sizes == length)
            anywhere = np.ndarray(len(self.data) - length + 1, f"V{length}", self.data, 0, (1,))
            octet_rows = anywhere[offsets[indexes]].view(np.uint8)
            octets[indexes, :length] = octet_rows.reshape(-1, length)
        return records

    def sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return how many bytes each record has."""
        _, _, many, length = np.array(self.rows, np.int64).T
        return np.repeat(length, many)


class Records:
    """Records in order, of one batch or of several."""

    def __init__(self, batches: Sequence[RowBatch] = ()) -> None:
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

    def select(self, indexes: Sequence[int]) -> Records:
        """Return some of the records, in the order of their ascending ``indexes``."""
        chosen, first = [], 0
        wanted = np.asarray(indexes, np.int64)
        for batch in self._batches:
            within = wanted[(wanted >= first) & (wanted < first + batch.count)] - first
            if within.size:
                chosen.append(batch.reorder(within))
            first += batch.count
        return Records(chosen)

    @property
    def lengths(self) -> set[int]:
        """The lengths in bytes that occur."""
        return {row.length for row in self._rows}

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


def count_equal(words: memoryview, at: int, step: int, most: int, value: int) -> int:
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
