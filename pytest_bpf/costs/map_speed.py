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

from pytest_bpf.costs.figure import Figure, Instrument
from pytest_bpf.costs.instrument import FixedProgram, instrument
from pytest_bpf.costs.intervals import figure_of
from pytest_bpf.costs.reference import Reference
from pytest_bpf.costs.statistics import statistics
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel import assembly, elements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Map

KINDS = frozenset(
    {"hash", "array", "percpu_hash", "percpu_array", "lru_hash", "lru_percpu_hash", "lpm_trie"}
)
"""The types whose keys programs look up and update by the helpers for that."""

REPEATED = 16
"""Look-ups in a run of the program."""

COPIED = 10_000
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


def map_speed(of: Map, *, batches: int = 30) -> MapSpeed:
    """Measure how long a look-up and an update of a map take; it is not changed by that.

    Types that are not looked up by key have figures that say so. Raises `UnavailableError` where
    the kernel has no statistics, or should count exactly and does not.
    """
    if batches < 1:
        raise BpfError(f"measuring map {of.name!r} takes one batch at least: {batches=}")
    if of.type not in KINDS:
        return _missing(of, f"a {of.type} has no keys that a program looks up")
    try:
        with statistics(), _copy(of) as (copied, material):
            return _measured(of, copied, material, batches)
    except OSError as error:
        return _missing(of, f"the kernel refuses a copy of it: {error.strerror}")


def _measured(of: Map, copied: int, material: int, batches: int) -> MapSpeed:
    start = _start(material, _rounded(of.key_size))
    found: dict[str, list[float]] = {"lookup": [], "update": []}
    reference = []
    with ExitStack() as stack:

        def program(*calls: bytes) -> FixedProgram:
            return stack.enter_context(FixedProgram(start + b"".join(calls) + assembly.RETURN_0))

        beside = stack.enter_context(Reference())
        without, looking = program(), program(_looking(copied) * REPEATED)
        programs = {"lookup": looking}
        if not of.flags & READ_ONLY:
            programs["update"] = program(_updating(copied) * REPEATED)
        for each in (without, *programs.values()):
            each.per_run()
        beside.wait_until_undisturbed()
        for _ in range(batches):
            base = without.per_run()
            for name, each in programs.items():
                found[name].append((each.per_run() - base) / REPEATED)
            reference.append(beside.per_run())
    exact = instrument().exact
    how: Instrument = "exact" if exact else "clock"

    def figure(name: str) -> Figure:
        metric = f"{name}_instructions" if exact else name
        if not found[name]:
            why = "programs may only read this map (BPF_F_RDONLY_PROG)"
            return Figure.missing(metric, f"map {of.name}", why, how)
        read = () if exact else reference
        return figure_of(metric, f"map {of.name}", found[name], how, read)

    return MapSpeed(of.name, figure("lookup"), figure("update"))


READ_ONLY = 1 << 7
"""``BPF_F_RDONLY_PROG``."""


def _start(material: int, value_at: int) -> bytes:
    """Point to the key and the value, which the one entry of ``material`` has."""
    found = assembly.copy(KEY, 0) + assembly.copy(VALUE, 0) + assembly.add(VALUE, value_at)
    return (
        assembly.store(NUMBER, 0)
        + assembly.load_map(1, material)
        + assembly.stack(2, NUMBER)
        + assembly.call(assembly.LOOKUP)
        + assembly.otherwise(0, assembly.RETURN_0)
        + found
    )


def _looking(copied: int) -> bytes:
    return assembly.load_map(1, copied) + assembly.copy(2, KEY) + assembly.call(assembly.LOOKUP)


def _updating(copied: int) -> bytes:
    arguments = assembly.copy(2, KEY) + assembly.copy(3, VALUE) + assembly.move(4, elements.ANY)
    return assembly.load_map(1, copied) + arguments + assembly.call(assembly.UPDATE)


@contextmanager
def _copy(of: Map) -> Iterator[tuple[int, int]]:
    """Yield the descriptors of a copy of a map, and of an array with one of its keys and values."""
    with ExitStack() as stack:
        sizes = (of.key_size, of.value_size, of.max_entries)
        copied = elements.create(of.type, *sizes, of.flags & COPIED_FLAGS)
        stack.callback(os.close, copied)
        present = list(islice(of.raw_items(), COPIED)) or [
            (bytes(of.key_size), bytes(of.layout.stride))
        ]
        for key, value in present:
            elements.update(copied, key, value)
        key, value = present[0][0], present[0][1][: of.value_size]
        content = key.ljust(_rounded(len(key)), b"\0") + value
        material = elements.create("array", 4, len(content), 1)
        stack.callback(os.close, material)
        elements.update(material, bytes(4), content)
        yield copied, material


COPIED_FLAGS = ~(1 << 10)
"""All flags but ``BPF_F_MMAPABLE``, which costs whole pages and no time."""


def _rounded(size: int) -> int:
    return (size + 7) // 8 * 8


def _missing(of: Map, why_not: str) -> MapSpeed:
    subject = f"map {of.name}"
    return MapSpeed(
        of.name,
        Figure.missing("lookup", subject, why_not, "clock"),
        Figure.missing("update", subject, why_not, "clock"),
    )
