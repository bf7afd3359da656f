"""Reading a whole map, against everything else that does, and against C.

Each way is a process of its own that reads the same map, ``struct amounts`` under a ``__u32``, and
says what processor time it took, which other work on the machine does not add to: small maps many
times on end. Slow ways are asked in some of the rounds only, and compared with ours in those.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.load_cached import SYSTEM_PYTHON
from benchmarks.pairs import Estimate, Spread, ratio
from benchmarks.report import Report, estimate, goal, number
from pytest_bpf.loader import Loader
from pytest_bpf.objects import Map

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROUNDS = 15
SLOW = 60_000
"""Milliseconds that a way has in all the rounds of a case; it is asked three times at least."""

TURN = 500
"""Milliseconds that a way reads on end when it is its turn, up to 100 times."""

HERE = Path(__file__).parent
PROGRAM = HERE / "programs" / "maps.bpf.c"
LIMIT = HERE / "programs" / "maps_limit.c"

SNAPSHOT, ITEMS = "pytest-bpf `snapshot()`", "pytest-bpf `items()`"
BCC, BCC_BATCH = "BCC `items()`", "BCC `items_lookup_batch()`"
BPFTOOL, PYLIBBPF = "`bpftool map dump -j`, parsed", "pylibbpf `items()`"
SINGLY, C_BATCH, C_LIMIT = "libbpf by ctypes, one by one", "C, batches", "C, for_each"
PYTHON_WAYS = {
    SNAPSHOT: "snapshot",
    ITEMS: "items",
    BCC: "bcc_items",
    BCC_BATCH: "bcc_batch",
    BPFTOOL: "bpftool",
    PYLIBBPF: "pylibbpf",
    SINGLY: "one_by_one",
}
PYTHONS = {
    **dict.fromkeys((BCC, BCC_BATCH), SYSTEM_PYTHON),
    PYLIBBPF: HERE.parent / "build" / "peers" / "bin" / "python",
}
"""Those that have the libraries; `.ci/setup bench` makes them."""


@dataclass(frozen=True)
class Case:
    """A kind of map and how many elements it has."""

    kind: str
    entries: int

    def __str__(self) -> str:
        size = {1000: "1 k", 10_000: "10 k", 100_000: "100 k", 1_000_000: "1 M"}[self.entries]
        return f"{self.kind.replace('percpu_', 'per-CPU ')} {size}"


CASES = [
    *(Case(kind, entries) for kind in ("hash", "array") for entries in (1000, 100_000, 1_000_000)),
    *(Case(kind, 10_000) for kind in ("percpu_hash", "percpu_array")),
]


class AbsentError(Exception):
    """Why a way cannot be measured."""


class Child:
    """A process that reads a map whenever it is asked."""

    def __init__(self, command: Sequence[object]) -> None:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                [str(part) for part in command], stdin=pipe, stdout=pipe, stderr=pipe, text=True
            )
        except OSError as error:
            raise AbsentError(f"{command[0]}: {error.strerror}") from None
        try:
            self.map_id = int(([*self._answer(), "0"])[1])
        except BaseException:
            self.close()
            raise

    def read(self, expected: int, times: int = 1) -> float:
        """Return the milliseconds that reading took, the median of so many times."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        took, count = self._answer()
        if int(count) != expected:
            raise AbsentError(f"it read {count} elements of {expected}")
        return float(took)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> list[str]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if line := self._process.stdout.readline():
            return line.split()
        said = self._process.stderr.read().strip()
        raise AbsentError(said.rpartition("\n")[2] or "it ended")


@dataclass
class Times:
    """Milliseconds by way and round, and why ways are absent."""

    by_way: dict[str, dict[int, float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def ratio(self, theirs: str, ours: str) -> Estimate | None:
        """Return how many times as long as ours theirs take, over the rounds that have both."""
        mine, other = self.by_way.get(ours, {}), self.by_way.get(theirs, {})
        both = sorted(mine.keys() & other.keys())
        if not both:
            return None
        return ratio([other[at] for at in both], [mine[at] for at in both])


def measure_case(case: Case, limit: Path | None, rounds: int, folder: Path) -> Times:
    """Read one map by all the ways, in turns."""
    times = Times()
    macros = f"#define KIND BPF_MAP_TYPE_{case.kind.upper()}\n#define ENTRIES {case.entries}\n"
    source = folder / f"{case.kind}_{case.entries}.bpf.c"
    source.write_text(macros + PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    limiting = folder / "limit.bpf.c"
    limiting.write_text("#define LIMIT\n" + PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    with ExitStack() as stack:
        loader = stack.enter_context(Loader())
        dumped = loader.load(source).maps["dumped"]
        fill(dumped)
        commands = dict(_commands(dumped.id, loader.compile(source).object, case, times))
        if limit is not None:
            commands[C_BATCH] = (limit, "batch", dumped.id)
            if not dumped.per_cpu:
                each = loader.compile(limiting).object
                commands[C_LIMIT] = (limit, "for_each", dumped.id, each)
        children: dict[str, Child] = {}
        for way, command in commands.items():
            try:
                child = Child(command)
            except AbsentError as error:
                times.absent[way] = str(error)
                continue
            stack.callback(child.close)
            if child.map_id not in {0, dumped.id}:
                fill(Map.from_id(child.map_id))
            children[way] = child
        take_turns(children, case.entries, rounds, times)
    return times


def _commands(
    map_id: int, compiled: Path, case: Case, times: Times
) -> Iterator[tuple[str, tuple[object, ...]]]:
    for way, name in PYTHON_WAYS.items():
        if way == PYLIBBPF and case.kind.startswith("percpu"):
            times.absent[way] = "it does not read per-CPU maps (EINVAL)"
            continue
        what = compiled if way == PYLIBBPF else map_id
        yield way, (PYTHONS.get(way, sys.executable), HERE / "maps_child.py", name, what)


def fill(of: Map) -> None:
    """Give a map as many elements as fit, in an order that is none."""
    keys = np.random.default_rng(1).permutation(of.max_entries).astype(np.uint32)
    values = np.zeros(of.max_entries, [("count", np.uint64), ("bytes", np.uint64)])
    values["count"], values["bytes"] = keys, keys * np.uint64(1500)
    of.update_many(keys, values)


def take_turns(children: Mapping[str, Child], expected: int, rounds: int, times: Times) -> None:
    """Ask each way once a round, slow ones in every so many rounds; who begins changes.

    The first reading of a way counts only where that is a slow one: small maps are set up in it.
    """
    every: dict[str, int] = {}
    often: dict[str, int] = {}
    for way, child in children.items():
        try:
            first = child.read(expected)
            if first < SLOW / rounds:
                first = child.read(expected, 5)
        except AbsentError as error:
            times.absent[way] = str(error)
            continue
        every[way] = rounds // min(rounds, max(3, int(SLOW / first)))
        often[way] = max(1, min(100, int(TURN / first)))
        if every[way] > 1:
            times.by_way[way] = {0: first}
    names = list(every)
    for at in range(rounds):
        begin = at % len(names)
        for way in names[begin:] + names[:begin]:
            measured = times.by_way.setdefault(way, {})
            if at % every[way] == 0 and at not in measured:
                measured[at] = children[way].read(expected, often[way])


def build_limit(folder: Path) -> Path:
    """Compile the C program; `AbsentError` without gcc or libbpf's headers."""
    made = folder / "maps_limit"
    try:
        command = ("gcc", "-O2", "-o", made, LIMIT, "-lbpf")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise AbsentError(f"gcc: {error.strerror}") from None
    if done.returncode:
        raise AbsentError(done.stderr.strip().partition("\n")[0])
    return made


def measure(rounds: int = ROUNDS) -> Report:
    """Measure; what cannot be measured is named."""
    with tempfile.TemporaryDirectory() as name:
        limit, why = None, ""
        try:
            limit = build_limit(Path(name))
        except AbsentError as error:
            why = f"Not compared with C: {error}."
        found = {case: measure_case(case, limit, rounds, Path(name)) for case in CASES}
    made = report(found)
    made.remarks[:0] = [why] if why else []
    return made


def report(found: Mapping[Case, Times]) -> Report:
    """Return the table, the goals and what was absent."""
    made = Report("A whole map, ms of processor time", ("way", *map(str, found)))
    ways = [*PYTHON_WAYS, C_BATCH, C_LIMIT]
    for way in ways:
        cells = [_cell(times.by_way.get(way, {})) for times in found.values()]
        if any(cells):
            made.rows.append((way, *cells))
        reasons = {times.absent[way] for times in found.values() if way in times.absent}
        made.remarks += [f"Not measured: {way}: {reason}." for reason in sorted(reasons)]
    made.remarks += [*_goals(found), *_ratios(found)]
    return made


def _goals(found: Mapping[Case, Times]) -> Iterator[str]:
    million, thousand = found[Case("hash", 1_000_000)], found[Case("hash", 1000)]
    for times, theirs, least, what in (
        (million, BCC, 40, "1 M hash entries at least 40 times as fast as BCC's `items()`"),
        (million, BCC_BATCH, 8, "1 M hash entries at least 8 times as fast as BCC's batches"),
        (million, BPFTOOL, 120, "1 M hash entries at least 120 times as fast as bpftool"),
        (thousand, BCC_BATCH, 5, "1 k hash entries at least 5 times as fast as BCC's batches"),
    ):
        if compared := times.ratio(theirs, SNAPSHOT):
            yield f"{goal(what, compared, least=least)} {estimate(compared)}."
    if compared := million.ratio(SNAPSHOT, C_LIMIT):
        what = "1 M hash entries at most 1.3 times as long as for_each in C"
        yield f"{goal(what, compared, most=1.3)} {estimate(compared)}."
    for case, times in found.items():
        if compared := times.ratio(BCC, ITEMS):
            what = f"typed `items()` at least 5 times as fast as BCC's, {case}"
            yield f"{goal(what, compared, least=5)} {estimate(compared)}."


def _ratios(found: Mapping[Case, Times]) -> Iterator[str]:
    for way in (BCC, BCC_BATCH, BPFTOOL, PYLIBBPF, SINGLY, C_BATCH, C_LIMIT):
        compared = {case: times.ratio(way, SNAPSHOT) for case, times in found.items()}
        told = [f"{case}: {estimate(each)}" for case, each in compared.items() if each is not None]
        if told:
            yield f"{way} takes so many times as long as `snapshot()`: {'; '.join(told)}."


def _cell(taken: Mapping[int, float]) -> str:
    return number(Spread.of(list(taken.values())).median) if taken else ""


if __name__ == "__main__":
    print(measure().markdown())
