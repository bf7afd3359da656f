"""A whole test: pair of namespaces, cached object, load, XDP, ten packets, map, everything gone.

Three ways take turns: ours, the same steps with commands, and the kernel's own share of attaching
and detaching: the bare bpf(2) and close(2), where XDP waits for a grace period of RCU
(``bpf_dispatcher_change_prog`` -> ``synchronize_rcu``) that no user of the kernel is spared.
"""

from __future__ import annotations

import ctypes
import os
import time
from ctypes import byref, c_size_t, c_uint32, c_uint64
from pathlib import Path

from benchmarks import commands
from benchmarks.pairs import Laps, Spread, ratio, take_turns
from benchmarks.report import Report, estimate, goal, number, spread
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.loader import Loader
from pytest_bpf.netns import pair

ROUNDS = 100
PACKETS = 10
PROGRAM = Path(__file__).with_name("programs") / "passed.bpf.c"
STEPS = ("pair", "load", "attach", "traffic", "read", "detach", "unload", "close")
BPF_XDP = 37
MEMBARRIER, MEMBARRIER_CMD_GLOBAL = {"x86_64": 324}.get(os.uname().machine, 283), 1

OURS, THEIRS, PATIENT, BARE = "pytest-bpf", "commands", "commands, ping -i 0.002", "kernel alone"


def ours() -> Laps:
    """Do the test with pytest-bpf's stations."""
    laps = Laps()
    with laps.time("pair"):
        places = pair()
        left, right = places
    with laps.time("load"):
        loader = Loader()
        obj = loader.load(PROGRAM)
    with laps.time("attach"):
        link = obj.programs["count"].attach(right.iface)
    with laps.time("traffic"):
        sent = left.traffic.ping(to=right, count=PACKETS)
    with laps.time("read"):
        counted = obj.maps["passed"].sum(0)
    with laps.time("detach"):
        link.detach()
    with laps.time("unload"):
        loader.close()
    with laps.time("close"):
        places.close()
    if not counted == sent.received == PACKETS:
        raise AssertionError(f"counted {counted} packets of {PACKETS}: {sent}")
    return laps


class _LinkOptions(ctypes.Structure):
    """``struct bpf_link_create_opts``, all zero but its size."""

    _fields_ = (("sz", c_size_t), ("flags", c_uint32), ("rest", c_uint64 * 7))


def kernel_alone() -> Laps:
    """Time the bare system calls of attaching and detaching, and one grace period."""
    laps = Laps()
    options = _LinkOptions(ctypes.sizeof(_LinkOptions))
    create = libbpf.function("bpf_link_create")
    with pair() as (_, right), Loader() as loader:
        program = loader.load(PROGRAM).programs["count"].fd
        ifindex = right.iface.ifindex

        def attach() -> int:
            with laps.time("attach"):
                return int(create(program, ifindex, BPF_XDP, byref(options)))

        link = right.run(attach)
        if link < 0:
            raise OSError(-link, os.strerror(-link))
        with laps.time("detach"):
            os.close(link)
    start = time.perf_counter()
    if not ctypes.CDLL(None).syscall(MEMBARRIER, MEMBARRIER_CMD_GLOBAL, 0, 0):
        laps["grace period"] = (time.perf_counter() - start) * 1000
    return laps


def measure(rounds: int = ROUNDS) -> Report:
    """Measure; without the commands, only our side."""
    report = Report("A whole test, ms", ("step", OURS, BARE))
    ways = {OURS: ours, BARE: kernel_alone}
    if lacking := commands.missing():
        report.remarks.append(f"Not compared with the commands: {', '.join(lacking)} is missing.")
    else:
        report.columns = ("step", OURS, THEIRS, BARE)
        commands.private_mounts()
        with Loader() as loader:
            compiled = loader.compile(PROGRAM).object
        ways[THEIRS] = lambda: commands.whole_test(compiled, PACKETS, ("-A",))
        ways[PATIENT] = lambda: commands.whole_test(compiled, PACKETS, ("-i", "0.002"))
    measured = take_turns(ways, rounds)
    shown = report.columns[1:]
    for step in STEPS:
        report.rows.append((step, *(_cell([r.get(step) for r in measured[w]]) for w in shown)))
    totals = {way: [laps.total() for laps in runs] for way, runs in measured.items()}
    waits = [laps["attach"] + laps["detach"] for laps in measured[BARE]]
    sums = {**totals, BARE: waits}
    report.rows.append(("**all**", *(f"**{spread(Spread.of(sums[way]))}**" for way in shown)))
    grace = [laps["grace period"] for laps in measured[BARE] if "grace period" in laps]
    if grace:
        report.remarks.append(f"One grace period, by membarrier(2): {spread(Spread.of(grace))} ms.")
    report.remarks += _compared(totals, measured, waits)
    return report


def _compared(
    totals: dict[str, list[float]], measured: dict[str, list[Laps]], waits: list[float]
) -> list[str]:
    own = {
        way: [laps.total() - laps["attach"] - laps["detach"] for laps in measured[way]]
        for way in measured
        if way != BARE
    }
    mine, waiting = (number(Spread.of(ms).median) for ms in (totals[OURS], waits))
    rest = spread(Spread.of(own[OURS]))
    parts = f"attaching and detaching take the kernel {waiting} ms, all other steps take {rest} ms"
    remarks = [f"{OURS} takes {mine} ms; {parts}."]
    for way in (THEIRS, PATIENT):
        if way in totals:
            whole, others = ratio(totals[OURS], totals[way]), ratio(own[OURS], own[way])
            took = f"Against {way} ({spread(Spread.of(totals[way]))} ms): {estimate(whole)}"
            remarks.append(f"{took} of their time; the other steps {estimate(others)}.")
            remarks.append(goal("at most half of their time", whole, most=0.5))
    return remarks


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return spread(Spread.of(known)) if known else ""


if __name__ == "__main__":
    print(measure().markdown())
