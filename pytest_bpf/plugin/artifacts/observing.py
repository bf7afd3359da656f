"""What changed between two moments of a test: runs, lines, maps, events, drops, refused updates.

Looking takes milliseconds: it is for tests whose path is recorded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_bpf.drops.counters import read_qdisc_drops
from pytest_bpf.drops.protocols import REASONS, read_drops
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.values.actions import ACTIONS
from pytest_bpf.kinds.maps import EVENT_MAPS, KEYLESS
from pytest_bpf.objects.programs.exits import FailedUpdates, Verdicts
from pytest_bpf.plugin.artifacts.looking import UNREADABLE, read, shorten, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Namespace
    from pytest_bpf.objects import Map, Object, Program

Change = tuple[str, str]
"""A kind of step, and what is said of it."""

MOST_BYTES = 1 << 16
"""Bytes of a map that is looked at after each step; a larger one is left alone."""

MOST_MAPS, MOST_CHANGES = 16, 4
"""Maps of an object that are looked at, and changes of one that a step shows."""


@dataclass(frozen=True)
class Told:
    """What programs returned, by their ids, and failed updates, by maps' ids; what is not known."""

    returned: Mapping[int, Counter[int]] = field(default_factory=dict)
    refused: Mapping[int, Counter[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Observer:
    """Tells what changed since the last time that it was asked.

    ``loaders`` and ``namespaces`` return those of the test, as there are now.
    """

    def __init__(
        self,
        loaders: Callable[[], Iterable[Loader]],
        namespaces: Callable[[], Iterable[Namespace]],
    ) -> None:
        self._loaders = loaders
        self._namespaces = namespaces
        self._runs: dict[int, int] = {}
        self._verdicts: dict[int, Verdicts | str] = {}
        self._untold: set[int] = set()
        self._returned: dict[int, Counter[int]] = {}
        self._lines: dict[int, Any] = {}
        self._contents: dict[int, Mapping[bytes, bytes]] = {}
        self._variables: dict[tuple[int, str], Any] = {}
        self._events: dict[int, tuple[int, int]] = {}
        self._dropped: dict[tuple[Namespace, str], Mapping[str, int]] = {}
        self._updates: FailedUpdates | None = None
        self._refused: dict[int, Counter[str]] = {}
        self._unread: dict[str, None] = {}

    def changes(self, kind: str = "") -> list[Change]:
        """Return what changed; ``kind`` is that of the step that was made.

        What a step of the kind ``"map"`` wrote, it says itself, as a ``"test_run"`` says its one
        run.
        """
        objects = [obj for obj in self._objects() if not obj.closed]
        changes: list[Change] = []
        for obj in objects:
            for program in obj.programs.values():
                ran = self._ran(program, own=kind == "test_run")
                changes += self._read(f"program {program.name!r}", ran)
            changes += self._read(f"lines of {obj.path.name}", self._lines_of(obj))
        for obj in objects:
            changed = [*self._maps_of(obj), *_bounded(self._variables_of(obj))]
            changes += [] if kind in {"map", "load"} else changed
            for entry in obj.maps.values():
                if entry.type in EVENT_MAPS:
                    changes += self._read(f"events of map {entry.name!r}", self._events_of(entry))
        changes += self._read("failed updates of maps", self._refusals(objects))
        for namespace in self._namespaces():
            if not namespace.closed:
                where = f"in {namespace.name!r}"
                changes += self._read(f"drops of protocols {where}", self._protocols_of(namespace))
                changes += self._read(f"drops of qdiscs {where}", self._qdiscs_of(namespace))
        return changes

    def attached(self) -> list[str]:
        """Return what is attached now, as ``"count from veth0"``."""
        return [
            f"{link.program} from {link.target}"
            for obj in self._objects()
            if not obj.closed
            for link in obj.links.values()
            if link.attached
        ]

    def told(self) -> Told:
        """Return all that was counted, and sentences on what was not."""
        notes = [
            verdicts
            for number, verdicts in self._verdicts.items()
            if isinstance(verdicts, str) and number in self._untold
        ]
        if self._updates is not None and self._updates.why_not:
            notes.append(self._updates.why_not)
        notes += self._unread
        return Told(dict(self._returned), dict(self._refused), tuple(dict.fromkeys(notes)))

    def close(self) -> None:
        """Observe nothing any more: a test whose objects go must not find ours in their place."""
        for verdicts in self._verdicts.values():
            if isinstance(verdicts, Verdicts):
                verdicts.close()
        self._verdicts.clear()
        if self._updates is not None:
            self._updates.close()
            self._updates = None

    def _objects(self) -> Iterator[Object]:
        for loader in self._loaders():
            yield from loader.objects

    def _read(self, what: str, changes: Iterator[Change]) -> list[Change]:
        """Return what can be read; what cannot is noted, and the test goes on."""
        return read(what, changes, self._note)

    def _note(self, what: str, error: Exception) -> None:
        self._unread[f"{what} could not be read: {error}"] = None

    def _ran(self, program: Program, *, own: bool) -> Iterator[Change]:
        count, before = int(program.info.run_cnt), self._runs.get(program.id, 0)
        self._runs[program.id] = count
        returned = self._verdicts_of(program)
        more = count - before
        if more > 0 and not (own and more == 1):
            times = "once" if more == 1 else f"{more} times"
            told = ", ".join(f"{_name(value)} {n}" for value, n in returned.most_common())
            if not told:
                self._untold.add(program.id)
            yield "run", f"{program.name} ran {times}{f': {told}' if told else ''}"

    def _verdicts_of(self, program: Program) -> Counter[int]:
        """Return what a program has returned since the last time, where this kernel tells it."""
        if program.type not in ACTIONS:
            return Counter()
        if program.id not in self._verdicts:
            try:
                self._verdicts[program.id] = Verdicts(program)
            except UnavailableError as error:
                self._verdicts[program.id] = str(error)
        verdicts = self._verdicts[program.id]
        if isinstance(verdicts, str):
            return Counter()
        try:
            now = verdicts.read()
        except OSError as error:
            self._note(f"verdicts of {program.name!r}", error)
            return Counter()
        more = now - self._returned.get(program.id, Counter())
        self._returned[program.id] = now
        return more

    def _lines_of(self, obj: Object) -> Iterator[Change]:
        recording: Any = obj.recording
        if not hasattr(recording, "between"):
            return
        now = recording.counts()
        before = self._lines.get(id(obj))
        self._lines[id(obj)] = now
        if before is None:
            before = type(now)(now.typecode, bytes(len(now) * now.itemsize))
        if now != before:
            for file in recording.between(before, now).files:
                ran = [line for line, count in file.lines.items() if count]
                if ran:
                    yield "lines", f"lines of {file.path.rpartition('/')[2]}: {ranges(ran)}"

    def _maps_of(self, obj: Object) -> Iterator[Change]:
        small = [m for m in obj.maps.values() if _is_small(m)][:MOST_MAPS]
        for entry in small:
            yield from self._read(f"map {entry.name!r}", _bounded(self._elements_of(entry)))

    def _elements_of(self, entry: Map) -> Iterator[Change]:
        now = dict(entry.copy().raw_items())
        before = self._contents.get(entry.id)
        self._contents[entry.id] = now
        if before is not None:
            yield from _elements(entry, before, now)

    def _variables_of(self, obj: Object) -> Iterator[Change]:
        changes = []
        for name, start, now in variables(obj, self._note):
            before = self._variables.get((id(obj), name), start)
            self._variables[id(obj), name] = now
            if before != now:
                changes.append(f"{name}: {shorten(before)} -> {shorten(now)}")
        yield from (("map", change) for change in changes)

    def _events_of(self, entry: Map) -> Iterator[Change]:
        reader = entry.reader
        if reader is None or reader.closed:
            return
        pending = int(reader.pending)
        arrived, gone = self._events.get(entry.id, (0, 0))
        self._events[entry.id] = (pending + reader.consumed, gone)
        if (more := pending + reader.consumed - arrived) > 0:
            yield "events", f"{entry.name}: {more} events, {pending} pending"
        lost = int(reader.lost)
        self._events[entry.id] = (pending + reader.consumed, lost)
        if lost > gone:
            yield "drops", f"{entry.name}: {lost - gone} events lost"

    def _refusals(self, objects: Iterable[Object]) -> Iterator[Change]:
        maps = [entry for obj in objects for entry in obj.maps.values()]
        if self._updates is None:
            if not maps:
                return
            self._updates = FailedUpdates()
        self._updates.watch(maps)
        now = self._updates.read()
        for entry in maps:
            more = now.get(entry.id, Counter()) - self._refused.get(entry.id, Counter())
            for name, count in more.items():
                times = "once" if count == 1 else f"{count} times"
                yield "drops", f"{entry.name}: an update failed {times} with {name}"
        self._refused = now

    def _protocols_of(self, namespace: Namespace) -> Iterator[Change]:
        counts = namespace.run(read_drops)
        now = {f"{REASONS[counter]} ({counter})": count for counter, count in counts.items()}
        yield from self._more_drops(namespace, "protocols", now)

    def _qdiscs_of(self, namespace: Namespace) -> Iterator[Change]:
        counts = namespace.run(read_qdisc_drops)
        now = {f"{reason} ({kind} of {name})": n for (reason, name, kind), n in counts.items()}
        yield from self._more_drops(namespace, "qdiscs", now)

    def _more_drops(
        self, namespace: Namespace, source: str, now: Mapping[str, int]
    ) -> Iterator[Change]:
        before = self._dropped.get((namespace, source), {})
        self._dropped[namespace, source] = now
        for why, count in now.items():
            if (more := count - before.get(why, 0)) > 0:
                noun = "packet" if more == 1 else "packets"
                yield "drops", f"dropped in {namespace.name}: {more} {noun} by {why}"


def ranges(lines: Iterable[int]) -> str:
    """Return numbers in short.

    >>> ranges([3, 4, 5, 9])
    '3-5, 9'
    """
    spans: list[list[int]] = []
    for line in sorted(lines):
        if spans and line == spans[-1][1] + 1:
            spans[-1][1] = line
        else:
            spans.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _is_small(entry: Map) -> bool:
    if entry.type in EVENT_MAPS | KEYLESS | UNREADABLE or entry.name.startswith("."):
        return False
    return entry.max_entries * (entry.key_size + entry.value_size) <= MOST_BYTES


def _elements(
    entry: Map, before: Mapping[bytes, bytes], now: Mapping[bytes, bytes]
) -> Iterator[Change]:
    for key in [*now, *(key for key in before if key not in now)]:
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        decode = entry.layout.decode_value
        where = f"{entry.name}[{shorten(entry.layout.decode_key(key))}]"
        was = "(new)" if old is None else shorten(decode(old))
        yield "map", f"{where}: {was} -> {'deleted' if new is None else shorten(decode(new))}"


def _bounded(changes: Iterator[Change]) -> Iterator[Change]:
    for number, change in enumerate(changes):
        if number == MOST_CHANGES:
            yield "map", "... and more"
            return
        yield change


def _name(value: int) -> str:
    return getattr(value, "name", None) or str(value)
