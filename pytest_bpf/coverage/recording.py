"""The counters of one loaded object: read, compared, and kept when it is closed."""

from __future__ import annotations

import mmap
import os
from array import array
from typing import TYPE_CHECKING, Protocol

from pytest_bpf.coverage.counters import MAP
from pytest_bpf.coverage.run_lines import LineCounts
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kinds.flags import MapFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pytest_bpf.coverage.evaluation import Build
    from pytest_bpf.coverage.loaded_lines import Line
    from pytest_bpf.coverage.values import FileLines
    from pytest_bpf.objects import Object, Run


class Counting(Protocol):
    """What counts: clang's counters, or those between instructions."""

    @property
    def digest(self) -> str:
        """What tells it from others."""

    def files(
        self, counts: Sequence[int], loaded: Collection[Line] | None = None
    ) -> list[FileLines]:
        """Return what the counters say of each source."""


class Memory(Protocol):
    """The counters of a loaded object."""

    def counts(self) -> array[int]:
        """Return them as they are now."""

    def close(self) -> None:
        """Let them go."""


class MapMemory:
    """The counters in the map that clang's build has."""

    def __init__(self, obj: Object, build: Build) -> None:
        self._holder = obj.maps[MAP]
        self._size = 8 * build.counters.count
        self._memory: mmap.mmap | None = None
        if self._holder.flags & MapFlags.MMAPABLE:
            self._memory = mmap.mmap(self._holder.fd, self._size, mmap.MAP_SHARED, mmap.PROT_READ)

    def counts(self) -> array[int]:
        """Return the counters as they are now."""
        if self._memory is not None:
            return array("Q", self._memory[: self._size])
        return array("Q", elements.lookup(self._holder.fd, bytes(4), self._holder.value_size))

    def close(self) -> None:
        """Unmap them."""
        if self._memory is not None:
            self._memory.close()


class Recording:
    """Counts the lines of one object: ``on_close`` takes the counts when it is closed."""

    def __init__(
        self,
        obj: Object,
        build: Counting,
        memory: Memory,
        on_close: Callable[[Recording, Sequence[int]], object],
    ) -> None:
        self.build = build
        self._path = os.path.normpath(obj.path)
        self._on_close = on_close
        self._memory = memory
        self.counts = memory.counts
        obj.recording = self
        for program in obj.programs.values():
            program.recording = self

    def between(self, before: Sequence[int], after: Sequence[int]) -> LineCounts:
        """Return what ran between two readings."""
        counts = [b - a for a, b in zip(before, after, strict=True)]
        return LineCounts(self.build.files(counts), self._path)

    def record(self, run: Callable[[], Run]) -> Run:
        """Run a program, and let the result tell the lines that it took."""
        before = self.counts()
        result = run()
        after = self.counts()
        object.__setattr__(result, "recording", lambda: self.between(before, after))
        return result

    def close(self) -> None:
        """Keep the counts, before the maps are closed."""
        self._on_close(self, self.counts())
        self._memory.close()
