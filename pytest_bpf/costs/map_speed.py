"""How long a map takes to be looked up and updated, from BPF, where programs do it.

Two small programs look up, or update, one key again and again, in a copy of the map: of the same
type, size and flags, with the same keys, so that nothing of the map itself is changed. What a
program takes that does the same without the look-ups is subtracted. The key is in the map, and in
the caches of the CPU: it is the least that a look-up takes.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from pytest_bpf.costs.figures.figure import Figure, Instrument
from pytest_bpf.costs.figures.intervals import figure_of
from pytest_bpf.costs.instruments.instrument import FixedProgram, instrument
from pytest_bpf.costs.instruments.reference import Reference
from pytest_bpf.errors import BpfError, with_article
from pytest_bpf.errors.arguments import checked
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.programs import assembly
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kinds.flags import MapFlags
from pytest_bpf.kinds.maps import TIMED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Map

REPEATS = 16
"""Look-ups in a run of the program."""

MOST_KEYS = 10_000
"""Keys that are copied at most."""

KEY, VALUE, NUMBER = 6, 7, -8
"""The registers with the addresses of the key and the value, and where the stack has a zero."""


@dataclass(frozen=True)
class MapSpeed:
    """The time of one ``lookup`` and one ``update`` of a map, from BPF."""

    map: str
    lookup: Figure
    update: Figure

    def figures(self) -> tuple[Figure, ...]:
        """Return both; in exact mode they are ``lookup_instructions``, ``update_instructions``."""
        return self.lookup, self.update


@checked
def map_speed(bpf_map: Map, *, batches: int = 30) -> MapSpeed:
    """Measure how long a look-up and an update of a map take; it is not changed by that.

    Types that are not looked up by key have figures that say so. Raises `UnavailableError` where
    the kernel has no statistics, or should count exactly and does not.
    """
    if batches < 1:
        raise BpfError(f"measuring map {bpf_map.name!r} takes one batch at least: {batches=}")
    if bpf_map.type not in TIMED:
        return _missing(
            bpf_map, f"{with_article(bpf_map.type)} has no keys that a program looks up"
        )
    try:
        with statistics(), _copy(bpf_map) as (copy, material):
            return _measure(bpf_map, copy, material, batches)
    except OSError as error:
        return _missing(bpf_map, f"the kernel refuses a copy of it: {error.strerror}")


def _measure(bpf_map: Map, copy: int, material: int, batches: int) -> MapSpeed:
    start = _start(material, _rounded(bpf_map.key_size))
    times: dict[str, list[float]] = {"lookup": [], "update": []}
    reference = []
    with ExitStack() as stack:

        def program(*calls: bytes) -> FixedProgram:
            return stack.enter_context(FixedProgram(start + b"".join(calls) + assembly.RETURN_0))

        reference_program = stack.enter_context(Reference())
        without, lookups = program(), program(_look_up(copy) * REPEATS)
        programs = {"lookup": lookups}
        if not bpf_map.flags & MapFlags.RDONLY_PROG:
            programs["update"] = program(_update(copy) * REPEATS)
        for each in (without, *programs.values()):
            each.per_run()
        reference_program.wait_until_quiet()
        for _ in range(batches):
            base = without.per_run()
            for name, each in programs.items():
                times[name].append((each.per_run() - base) / REPEATS)
            reference.append(reference_program.per_run())
    exact = instrument().exact
    how: Instrument = "exact" if exact else "clock"

    def figure(name: str) -> Figure:
        metric = f"{name}_instructions" if exact else name
        if not times[name]:
            why = "programs may only read this map (BPF_F_RDONLY_PROG)"
            return Figure.missing(metric, f"map {bpf_map.name}", why, how)
        read = () if exact else reference
        return figure_of(metric, f"map {bpf_map.name}", times[name], how, read)

    return MapSpeed(bpf_map.name, figure("lookup"), figure("update"))


def _start(material: int, value_at: int) -> bytes:
    """Point to the key and the value, which the one entry of ``material`` has."""
    pointers = assembly.copy(KEY, 0) + assembly.copy(VALUE, 0) + assembly.add(VALUE, value_at)
    return (
        assembly.store(NUMBER, 0)
        + assembly.load_map(1, material)
        + assembly.stack(2, NUMBER)
        + assembly.call(assembly.LOOKUP)
        + assembly.otherwise(0, assembly.RETURN_0)
        + pointers
    )


def _look_up(copy: int) -> bytes:
    return assembly.load_map(1, copy) + assembly.copy(2, KEY) + assembly.call(assembly.LOOKUP)


def _update(copy: int) -> bytes:
    arguments = assembly.copy(2, KEY) + assembly.copy(3, VALUE) + assembly.move(4, elements.ANY)
    return assembly.load_map(1, copy) + arguments + assembly.call(assembly.UPDATE)


@contextmanager
def _copy(bpf_map: Map) -> Iterator[tuple[int, int]]:
    """Yield the descriptors of a copy of a map, and of an array with one of its keys and values."""
    with ExitStack() as stack:
        sizes = (bpf_map.key_size, bpf_map.value_size, bpf_map.max_entries)
        copy = elements.create(bpf_map.type, *sizes, bpf_map.flags & COPY_FLAGS)
        stack.callback(os.close, copy)
        present = list(islice(bpf_map.raw_items(), MOST_KEYS)) or [
            (bytes(bpf_map.key_size), bytes(bpf_map.layout.stride))
        ]
        for key, value in present:
            elements.update(copy, key, value)
        key, value = present[0][0], present[0][1][: bpf_map.value_size]
        content = key.ljust(_rounded(len(key)), b"\0") + value
        material = elements.create("array", 4, len(content), 1)
        stack.callback(os.close, material)
        elements.update(material, bytes(4), content)
        yield copy, material


COPY_FLAGS = ~MapFlags.MMAPABLE
"""All flags but ``BPF_F_MMAPABLE``, which costs whole pages and no time."""


def _rounded(size: int) -> int:
    return (size + 7) // 8 * 8


def _missing(bpf_map: Map, why_not: str) -> MapSpeed:
    subject = f"map {bpf_map.name}"
    return MapSpeed(
        bpf_map.name,
        Figure.missing("lookup", subject, why_not, "clock"),
        Figure.missing("update", subject, why_not, "clock"),
    )
