"""Many new inputs at once: the changes that keep an input's length, made on arrays.

An input costs half a microsecond so; made one by one, it costs three to five.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_bpf.fuzz.mutation import EDGES, mutator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from pytest_bpf.fuzz.inputs import Form

FEWEST, MOST = 16, 512
"""How many inputs are made at once: few while the corpus grows, which they are made of."""

BITS, BYTES, NUMBERS, PARTS = 0.30, 0.48, 0.59, 0.64
"""Up to which of the numbers from 0 to 1 a change is one of a bit, of a byte, a number at which
programs err, a word in a fixed part; a word anywhere behind that."""

ONE_BY_ONE = 0.15
"""How many of the inputs change in their length, or are joined of two."""


class Source:
    """An endless source of new inputs, made of those of a corpus."""

    def __init__(self, random: Random, shape: Form, words: Sequence[bytes]) -> None:
        self._random = np.random.default_rng(random.getrandbits(64))
        self._one = mutator(random, shape, words)
        self._edges, self._words = _Words(EDGES), _Words(words or EDGES)
        self._parts = np.array([part.start for part in shape.parts], dtype=np.int64)
        self._ready: list[bytes] = []
        self._of, self._size = 0, FEWEST

    def take(self, corpus: Sequence[bytes], count: int) -> list[bytes]:
        """Return at most so many inputs, each made of one of the corpus as it is now."""
        if not self._ready or self._of != len(corpus):
            self._size = FEWEST if self._of != len(corpus) else min(MOST, 2 * self._size)
            self._of = len(corpus)
            self._ready = self._make(corpus, self._size)
        taken = self._ready[-count:]
        del self._ready[-count:]
        return taken

    def _make(self, corpus: Sequence[bytes], count: int) -> list[bytes]:
        draw = self._random
        picks = draw.integers(0, len(corpus), count).tolist()
        alone = (draw.random(count) < ONE_BY_ONE).tolist()
        chosen = [corpus[pick] for pick in picks]
        data = np.frombuffer(bytearray().join(chosen), dtype=np.uint8)
        sizes = np.array([len(one) for one in chosen], dtype=np.int64)
        ends = np.cumsum(sizes)
        if len(data):
            self._change(data, ends - sizes, ends)
        whole, start, result = data.tobytes(), 0, []
        for end, single in zip(ends.tolist(), alone, strict=True):
            result.append(self._one(corpus) if single else whole[start:end])
            start = end
        return result

    def _change(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        """Change each of the inputs that lie in ``data`` end to end, in 1, 2 or 4 places."""
        draw = self._random
        count = len(starts)
        many = 1 << draw.integers(0, 3, count)
        many[starts == ends] = 0
        first, end = np.repeat(starts, many), np.repeat(ends, many)
        total = len(first)
        at = first + (draw.random(total) * (end - first)).astype(np.int64)
        choice = draw.random(total)
        values = draw.integers(0, 256, total, dtype=np.uint8)
        kinds = np.searchsorted((BITS, BYTES, NUMBERS, PARTS), choice)
        words = kinds == 4
        if len(self._parts):
            fixed = kinds == 3
            place = self._parts[draw.integers(0, len(self._parts), int(fixed.sum()))]
            self._words.put(draw, data, first[fixed] + place, end[fixed])
        else:
            words |= kinds == 3
        self._words.put(draw, data, at[words], end[words])
        edges = kinds == 2
        self._edges.put(draw, data, at[edges], end[edges])
        one = kinds == 1
        data[at[one]] = values[one]
        bit = at[kinds == 0]
        data[bit] ^= (1 << (values[kinds == 0] & 7)).astype(np.uint8)


class _Words:
    """Words of several lengths end to end."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self._bytes = np.frombuffer(b"".join(words), dtype=np.uint8)
        self._sizes = np.array([len(word) for word in words], dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def put(
        self, draw: np.random.Generator, data: np.ndarray, at: np.ndarray, end: np.ndarray
    ) -> None:
        """Put a word at each place, as much of it as there is room for before the end."""
        chosen = draw.integers(0, len(self._sizes), len(at))
        sizes = np.minimum(self._sizes[chosen], end - at)
        before = np.cumsum(sizes) - sizes
        step = np.arange(int(sizes.sum())) - np.repeat(before, sizes)
        data[np.repeat(at, sizes) + step] = self._bytes[
            np.repeat(self._starts[chosen], sizes) + step
        ]
