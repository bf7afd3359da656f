"""Programs loaded one by one out of an object with hundreds, against a loop in C over libbpf."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pairs import Laps, Spread, difference, ratio, take_turns
from benchmarks.report import Report, estimate, goal, spread
from benchmarks.selftests.ways import c_loop
from pytest_bpf.errors import UnavailableError
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
PROGRAMS = 300
EACH = 100
"""How many of the programs are loaded in a round."""

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
const volatile int limit = 3;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u64); } counts SEC(".maps");
"""
BODY = """
SEC("socket") int case_%(number)d(struct __sk_buff *skb)
{
	__u32 key = %(number)d & 3;
	__u64 *count = bpf_map_lookup_elem(&counts, &key);
	if (count)
		*count += skb->len + %(number)d;
	return limit;
}
"""
SOURCE, OBJECT, LOOP, OPEN = (
    "from the source",
    "from the object",
    "C over libbpf",
    "open (CPU time)",
)
NAMES = [f"case_{number}" for number in range(0, PROGRAMS, PROGRAMS // EACH)]


def measure(rounds: int = ROUNDS) -> Report:
    """Measure; without a C compiler, only our side."""
    report = Report("Programs loaded one by one, ms a program", ("way", "load"))
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "cases.bpf.c"), Path(folder, "cases.bpf.o")
        source.write_text(HEAD + "".join(BODY % {"number": n} for n in range(PROGRAMS)))
        with Loader() as loader:
            shutil.copy(loader.compile(source).object, built)
        ways: dict[str, Callable[[], Laps]] = {
            SOURCE: lambda: ours(source),
            OBJECT: lambda: ours(built),
            OPEN: lambda: opens(built),
        }
        try:
            loop = c_loop()
            ways[LOOP] = lambda: theirs(loop, built)
        except UnavailableError as error:
            report.remarks.append(str(error))
        for run in ways.values():
            run()
        laps = take_turns(ways, rounds)
    times = {way: [lap["load"] for lap in laps[way]] for way in ways}
    for way, values in times.items():
        report.rows.append((way, spread(Spread.of(values))))
    report.remarks.append(
        goal(
            f"open {estimate(difference(times[OPEN], [0.0] * rounds))} ms of CPU time, at most 2",
            difference(times[OPEN], [0.0] * rounds),
            most=2.0,
        )
    )
    if LOOP in times:
        for way, least in ((SOURCE, 0.7), (OBJECT, 0.6)):
            rate = ratio(times[LOOP], times[way])
            what = f"{way} {estimate(rate)} of the rate of {LOOP}, at least {least}"
            report.remarks.append(goal(what, rate, least=least))
    return report


def ours(path: Path) -> Laps:
    """Load each program alone, as a test does."""
    laps = Laps()
    with laps.time("load"):
        for name in NAMES:
            with Loader() as loader:
                loader.load(path, programs=name)
    laps["load"] /= len(NAMES)
    return laps


def opens(path: Path) -> Laps:
    """Open the object, and look at a program; in CPU time, as nothing is waited for."""
    start = time.process_time()
    for name in NAMES:
        with Loader() as loader:
            assert loader.open(path).programs[name].type == "socket_filter"
    return Laps(load=(time.process_time() - start) * 1000 / len(NAMES))


def theirs(loop: Path, path: Path) -> Laps:
    """Load each program alone by libbpf, in C."""
    laps = Laps()
    lines = "".join(f"{path} {name} p 0 0 - -\n" for name in NAMES)
    with laps.time("load"):
        subprocess.run([loop], input=lines, stdout=subprocess.DEVNULL, text=True, check=True)
    laps["load"] /= len(NAMES)
    return laps
