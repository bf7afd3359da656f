"""Networks and links: pairs, tcx against tc's commands and bare bpf(2), pyroute2, captures."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pairs import Laps, Spread, difference, ratio, take_turns
from benchmarks.report import Report, estimate, goal, number, spread
from pytest_bpf.kernel import features
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.loader import Loader
from pytest_bpf.netns import pair
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.netns import Namespace
    from pytest_bpf.objects import Object

ROUNDS = 15
FRAMES = 1_000_000
IPR_ROUNDS = 5
PLACE = ["dev", "veth0", "ingress"]
SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("tcx/ingress") int pass_tcx(struct __sk_buff *skb) { return -1; }
SEC("classifier") int pass_tc(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
IPR = """
import time
def test_first_use(bpf_netns):
    begin = time.process_time()
    bpf_netns.ipr
    print("CPU", time.process_time() - begin)
"""
PAIR, READY = "a pair, made and closed", "the same, ready for XDP"
COMMANDS, FILTER = "tc's commands: a filter added and removed", "a tc filter, attached and detached"
LINK, BARE = "a tcx link, attached and detached", "the same by bare bpf(2): the kernel alone"


def measure(rounds: int = ROUNDS) -> Report:
    """Measure; without tcx and where frames cannot be flooded, the rest."""
    report = Report("Networks and links, ms", ("what", "time", "CPU time"))
    pairs = take_turns({PAIR: lambda: timed(make), READY: lambda: timed(make, xdp=True)}, rounds)
    links = attaching(rounds)
    for way, laps in {**pairs, **links}.items():
        cells = [spread(Spread.of([lap[step] for lap in laps])) for step in ("time", "CPU")]
        report.rows.append((way, *cells))
    one, two = ([lap["time"] for lap in pairs[way]] for way in (PAIR, READY))
    more = ratio(two, one)
    report.remarks.append(
        goal(f"a pair ready for XDP takes {estimate(more)} of a pair, at most 1.3", more, most=1.3)
    )
    report.remarks += link_goals(links)
    report.remarks += [first_ipr(), captures()]
    return report


def timed(function: Callable[..., object], **options: object) -> Laps:
    """Run it once; the CPU time is that of this process and of the commands that it waited for."""
    before, begin = cpu(), time.perf_counter()
    function(**options)
    return Laps(time=(time.perf_counter() - begin) * 1000, CPU=(cpu() - before) * 1000)


def cpu() -> float:
    """Return seconds of CPU so far, with those of children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def make(*, xdp: bool = False) -> None:
    pair(xdp=xdp).close()


def attaching(rounds: int) -> dict[str, list[Laps]]:
    """Attach and detach on one interface, by every way there is."""
    with Loader() as bpf, pair() as (left, _), PinDirectory() as pins:
        tcx = features.attach("tcx")
        names = ["pass_tc", "pass_tcx"] if tcx else ["pass_tc"]
        obj = bpf.load(SOURCE, name="networks", programs=names)
        path = str(pins.path / "program")
        obj.programs["pass_tc"].pin(path)
        left.popen(["tc", "qdisc", "add", "dev", "veth0", "clsact"]).wait()
        ways: dict[str, Callable[[], object]] = {
            COMMANDS: lambda: commands(left, path),
            FILTER: lambda: attach(obj, left, "pass_tc", direction="ingress", mode="clsact"),
        }
        if tcx:
            ways[LINK] = lambda: attach(obj, left, "pass_tcx")
            ways[BARE] = lambda: left.run(bare, obj.programs["pass_tcx"].fd, left.iface.ifindex)
        return take_turns({way: partial(timed, run) for way, run in ways.items()}, rounds)


def attach(obj: Object, place: Namespace, name: str, **options: str) -> None:
    obj.programs[name].attach(place.iface, **options).detach()  # type: ignore[arg-type]


def bare(program: int, ifindex: int) -> None:
    os.close(create_link(program, ifindex, AttachType.TCX_INGRESS))


def commands(place: Namespace, path: str) -> None:
    """Add and remove a filter, as a shell script does."""
    add = ["tc", "filter", "add", *PLACE, "bpf", "da", "object-pinned", path]
    for words in (add, ["tc", "filter", "del", *PLACE]):
        assert place.popen(words, stderr=subprocess.DEVNULL).wait() == 0


def link_goals(links: dict[str, list[Laps]]) -> list[str]:
    """Compare with tc's commands; what the kernel waits for is told apart."""
    times = {way: [lap["time"] for lap in laps] for way, laps in links.items()}
    faster = ratio(times[COMMANDS], times[FILTER])
    what = f"a tc filter {estimate(faster)} times as fast as tc's commands, at least 5"
    goals = [goal(what, faster, least=5)]
    if LINK not in times:
        return goals
    whole = ratio(times[COMMANDS], times[LINK])
    goals.append(goal(f"a tcx link {estimate(whole)} times as fast, at least 5", whole, least=5))
    own = difference(times[LINK], times[BARE])
    kernel = Spread.of(times[BARE])
    goals.append(
        f"Of a tcx link's time, the kernel takes {spread(kernel)} ms by bare bpf(2): attaching and "
        "detaching each wait for a grace period of RCU (`tcx_entry_sync`), while nobody may change "
        f"interfaces. All that is ours: {estimate(own)} ms."
    )
    work = {way: [lap["CPU"] for lap in links[way]] for way in (COMMANDS, LINK)}
    rate = ratio(work[COMMANDS], work[LINK])
    goals.append(
        goal(f"a tcx link {estimate(rate)} times as fast in CPU time, at least 5", rate, least=5)
    )
    return goals


def first_ipr() -> str:
    """Measure the first use of ``netns.ipr`` in sessions of pytest, each in a new process."""
    times = sorted(_ipr_session() for _ in range(IPR_ROUNDS))
    found = Spread.of(times)
    verdict = "reached" if times[-1] <= 60 else "inconclusive" if times[0] <= 60 else "not reached"
    return (
        f"Goal: first use of `netns.ipr` {spread(found)} ms of CPU time, at most 60: **{verdict}**."
    )


def _ipr_session() -> float:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_ipr.py").write_text(IPR, encoding="ascii")
        words = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder)
    return float(done.stdout.split("CPU ")[1].split()[0]) * 1000


def captures() -> str:
    """Capture a flood, beside a flood that nobody captures."""
    with pair() as (left, right):
        frame = udp_frame(left.iface, right.iface)
        alone = left.traffic.flood(frame, count=FRAMES, to=right)
        with right.iface.capture(direction="in", ring=64 << 20) as capture:
            sent = left.traffic.flood(frame, count=FRAMES, to=right)
        return (
            f"Capture of {FRAMES:,} frames at the flood's own rate: {len(capture):,} are there, "
            f"{capture.lost:,} lost and counted; it takes {number(sent.seconds / alone.seconds)} "
            "times the time of a flood without a capture."
        )
