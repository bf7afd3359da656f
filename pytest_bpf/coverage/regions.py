"""From counted regions to counted lines, by the same rules as ``llvm-cov``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from pytest_bpf.coverage.mapping import GAP, SKIPPED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_bpf.coverage.mapping import Place


@dataclass(frozen=True)
class CountedRegion:
    """A region of one file, and how often it ran."""

    kind: int
    start: Place
    end: Place
    count: int


@dataclass(frozen=True)
class _Segment:
    """From here on it is ``count``, up to the next segment; nothing is counted when None."""

    place: Place
    count: int | None
    entry: bool
    gap: bool = False

    @property
    def starts_region(self) -> bool:
        return self.entry and not self.gap and self.count is not None


def line_counts(regions: Iterable[CountedRegion]) -> dict[int, int]:
    """Return how often each line ran that is part of a region."""
    segments = _Segments(_merged(regions)).segments
    counts: dict[int, int] = {}
    wrapped: _Segment | None = None
    line = 0
    for number, some in groupby(segments, key=lambda segment: segment.place[0]):
        if wrapped is not None and wrapped.count is not None:
            counts.update(dict.fromkeys(range(line + 1, number), wrapped.count))
        line, here = number, list(some)
        count = _line_count(here, wrapped)
        if count is not None:
            counts[line] = count
        wrapped = here[-1]
    return counts


def _line_count(segments: Sequence[_Segment], wrapped: _Segment | None) -> int | None:
    """Return the count of a line where segments start; None for one that nothing counts."""
    counts = [s.count for s in segments if s.starts_region and s.count is not None]
    first = segments[0]
    if first.entry and first.count is None:
        return None
    if wrapped is not None and wrapped.count is not None:
        counts.append(wrapped.count)
    return max(counts, default=None)


def _merged(regions: Iterable[CountedRegion]) -> list[CountedRegion]:
    """Return the regions in order, those of the same place as one."""
    ordered = sorted(regions, key=lambda r: (r.start, (-r.end[0], -r.end[1]), r.kind))
    merged: list[CountedRegion] = []
    for region in ordered:
        last = merged[-1] if merged else None
        if last is None or (last.start, last.end) != (region.start, region.end):
            merged.append(region)
        elif last.kind == region.kind:
            merged[-1] = replace(last, count=last.count + region.count)
    return merged


class _Segments:
    """Where the count changes along a file whose regions lie in each other."""

    def __init__(self, regions: Sequence[CountedRegion]) -> None:
        self.segments: list[_Segment] = []
        self._active: list[CountedRegion] = []
        for number, region in enumerate(regions):
            following = regions[number + 1] if number + 1 < len(regions) else None
            self._end_before(region.start)
            self._begin(region, following)
        if self._active:
            self._complete(None, 0)

    def _end_before(self, place: Place) -> None:
        """Close the regions that end where the next one starts, or before."""
        ended = [region for region in self._active if region.end <= place]
        if ended:
            self._active = [region for region in self._active if region.end > place]
            first = len(self._active)
            self._active += ended
            self._complete(place, first)

    def _begin(self, region: CountedRegion, following: CountedRegion | None) -> None:
        entry = region.kind != GAP
        if region.start == region.end:
            skipped = following is None or region.kind == SKIPPED
            owner = self._active[-1] if self._active else region
            self._start(owner, region.start, entry=entry, skipped=skipped)
            if skipped and self._active:
                self._start(self._active[-1], region.start)
            return
        if following is None or following.start != region.start:
            self._start(region, region.start, entry=entry)
        self._active.append(region)

    def _complete(self, place: Place | None, first: int) -> None:
        """Close the active regions from ``first`` on, before a region that starts at ``place``."""
        done = sorted(self._active[first:], key=lambda region: region.end)
        for index in range(1, len(done)):
            end, region = done[index - 1].end, done[index]
            if end == place:
                break
            if end == region.end:
                continue
            same = [other for other in done[index + 1 :] if other.end == region.end]
            self._start(same[-1] if same else region, end)
        last = done[-1]
        if first and last.end != place:
            self._start(self._active[first - 1], last.end)
        elif not first and last.end != place:
            self._start(last, last.end, skipped=True)
        del self._active[first:]

    def _start(
        self, region: CountedRegion, place: Place, *, entry: bool = False, skipped: bool = False
    ) -> None:
        count = None if skipped or region.kind == SKIPPED else region.count
        if self.segments and not entry and not skipped:
            last = self.segments[-1]
            if last.count == count and not last.entry:
                return
        gap = count is not None and region.kind == GAP
        self.segments.append(_Segment(place, count, entry, gap))
