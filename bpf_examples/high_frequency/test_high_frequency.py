"""Thousands of reads: exact totals from the kernel, and a hundredth of the data.

Everything in a process reads now and then, pytest's own threads too. The programs look at one
process alone, and the tests at one thread of it: their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from threading import get_native_id
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import DifferenceError, latency

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_bpf import Events, Loader, Object, Syscalls
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.costs.run import Measure
    from pytest_bpf.costs.slow_down import MeasureOverhead
    from pytest_bpf.plugin.fuzzing import CheckEquivalence

pytestmark = pytest.mark.bpf_requires(attach="tracepoint", map_type=["ringbuf", "percpu_hash"])

READS = 20_000

READER = """
import os, time
zeros = os.open("/dev/zero", os.O_RDONLY)
os.read(0, 1)
while True:
    time.sleep(0.001)
    os.read(zeros, 1)
"""
"""Waits for its input to end, and reads a thousand times a second."""

EVERY_READ = ["perf.bpf.c", "before.bpf.c"]


@pytest.mark.parametrize("source", EVERY_READ)
def test_totals_equal_the_events(bpf: Loader, bpf_syscalls: Syscalls, source: str) -> None:
    before, after = load(bpf, source), load(bpf, "after.bpf.c")
    before.maps["events"].events()  # from here on, a perf buffer keeps what comes
    for obj in (before, after):
        with obj.programs["on_read"].attach():
            bpf_syscalls.read(1000, size=64)
            bpf_syscalls.read(10, size=0)
    events = own_events(before)
    assert [event.requested for event in events] == [64] * 1000 + [0] * 10
    assert own_totals(after) == (len(events), sum(event.requested for event in events))


def test_totals_are_exact_and_samples_are_a_hundredth(bpf: Loader, bpf_syscalls: Syscalls) -> None:
    after = load(bpf, "after.bpf.c")
    with after.programs["on_read"].attach():
        bpf_syscalls.read(READS, size=64)
    assert own_totals(after) == (READS, READS * 64)
    five_sigma = 5 * (READS * 0.01 * 0.99) ** 0.5
    assert len(own_events(after)) == pytest.approx(READS / 100, abs=five_sigma)


def test_one_sample_in_one_is_every_event(bpf: Loader, bpf_syscalls: Syscalls) -> None:
    after = load(bpf, "after.bpf.c", one_in=1)
    with after.programs["on_read"].attach():
        bpf_syscalls.read(1000)
    assert len(own_events(after)) == own_totals(after).count == 1000


def test_events_are_the_same_where_each_read_is_a_sample(
    bpf: Loader, bpf_equivalent: CheckEquivalence
) -> None:
    with Path("/dev/zero").open("rb", buffering=0) as zeros:
        result = bpf_equivalent(
            load(bpf, "before.bpf.c"),
            load(bpf, "after.bpf.c", one_in=1),
            stimulus=lambda data: zeros.read(data[0]),
            ignore=["totals", "uncounted"],  # what is new
        )
        assert result.before.reach.blocks >= result.before.reach.all_blocks - 1
        with pytest.raises(DifferenceError, match="events of 'events'"):  # on purpose
            bpf_equivalent(
                load(bpf, "before.bpf.c"),
                load(bpf, "after.bpf.c"),
                stimulus=lambda data: zeros.read(data[0]),
                ignore=["totals", "uncounted"],
            )


@pytest.mark.bpf_claim("the data to user space is a hundredth", row=14)
def test_data_to_user_space_is_at_most_two_percent(
    bpf: Loader, bpf_syscalls: Syscalls, bpf_claim: ClaimCheck
) -> None:
    sent = {}
    for source in ("before.bpf.c", "after.bpf.c"):
        obj = load(bpf, source)
        with obj.programs["on_read"].attach():
            bpf_syscalls.read(READS)
        events = obj.maps["events"].events().read()
        sent[source] = (16 + 8) * len(events)  # an event, and the ring buffer's header
    totals = obj.maps["totals"]
    each_cpus = len(totals) * (totals.key_size + 16 * len(totals[get_native_id()]))
    before, after = sent["before.bpf.c"], sent["after.bpf.c"] + each_cpus
    bpf_claim(
        after <= 0.02 * before,
        f"{len(events)} events and the totals, for {READS:,} reads",
        before=before,
        after=after,
        unit="B",
    )


@pytest.mark.bpf_claim(
    "15 % of a CPU become less than 2 %: 7.5 times less", row=14, verdict="holds in part"
)
@pytest.mark.bpf_requires(exact=True)
def test_cpu_is_less_where_user_space_would_have_to_read_the_events(
    bpf: Loader, bpf_syscalls: Syscalls, bpf_measure: Measure, bpf_claim: ClaimCheck
) -> None:
    run, whole = {}, {}
    for source in (*EVERY_READ, "after.bpf.c"):
        obj = load(bpf, source)
        obj.maps["events"].events()
        program = obj.programs["on_read"]
        with program.attach():
            run[source] = bpf_measure(program, partial(bpf_syscalls.read, 100), batches=9).per_run
            reader = [reading(obj, partial(bpf_syscalls.read, 4000), times=5) for _ in range(2)]
        whole[source] = run[source] + reader[1] / 20_000  # the first one also imports
    perf, ring, after = run.values()
    whole_perf, whole_ring, whole_after = whole.values()
    assert whole_after < min(whole_perf, whole_ring) / 2
    bpf_claim(
        {
            "half of the program with a perf buffer": after <= perf / 2,
            "less than the program with a ring buffer": after < ring,
            "7.5 times less, the programs alone": perf >= 7.5 * after,
        },
        f"ring buffer {ring:.0f}; with a reader in Python, perf buffer {whole_perf:,.0f}, ring "
        f"buffer {whole_ring:,.0f}, after {whole_after:,.0f}: what takes 15 % of a CPU in a perf "
        f"buffer, {0.15e9 / whole_perf:,.0f} reads a second, takes "
        f"{0.15 * whole_after / whole_perf:.1%} after",
        before=perf,
        after=after,
        unit="instructions a read, from a perf buffer's",
    )


@pytest.mark.bpf_claim("reading is slowed down by 50 to 90 % less", row=14, verdict=None)
@pytest.mark.bpf_requires(exact=False)
def test_slow_down_of_the_reads(
    bpf: Loader, bpf_syscalls: Syscalls, bpf_overhead: MeasureOverhead, bpf_claim: ClaimCheck
) -> None:
    slower = {}
    for source in (*EVERY_READ, "after.bpf.c"):
        obj = load(bpf, source)
        program, events = obj.programs["on_read"], obj.maps["events"].events()

        def reads(events: Events = events) -> None:
            bpf_syscalls.read(1000)
            events.read()

        slower[source] = bpf_overhead(program, reads, seconds=1).slow_down
    perf, ring, after = slower.values()
    bpf_claim(
        {
            "than with a perf buffer": after.value <= 0.5 * perf.value,
            "than with a ring buffer": after.value <= 0.5 * ring.value,
        },
        f"perf buffer {perf.value:+.0%}, ring buffer {ring.value:+.0%}, after {after.value:+.0%}",
    )


@pytest.mark.bpf_claim(
    "P99 of the time until user space has a sample is less than 100 us", row=14, verdict=None
)
@pytest.mark.bpf_requires(exact=False)
def test_time_until_user_space_has_a_sample(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    with subprocess.Popen([sys.executable, "-c", READER], stdin=subprocess.PIPE) as reader:
        assert reader.stdin
        after = load(bpf, "after.bpf.c", tgid=reader.pid, one_in=1)
        events = after.maps["events"].events()
        after.attach()
        reader.stdin.close()
        told = latency(events.read(count=300, timeout=30), "when")
        reader.kill()
    bpf_claim(
        told.p99 < 100_000,
        f"{told.p99 / 1000:.0f} us, median {told.p50 / 1000:.0f} us; one sample a ms",
    )


@pytest.mark.bpf_claim("less than 0.1 % of the events are lost", row=14)
def test_of_a_burst_nothing_is_lost(
    bpf: Loader, bpf_syscalls: Syscalls, bpf_claim: ClaimCheck
) -> None:
    room, lost = 256 << 10, {}
    for source in ("before.bpf.c", "after.bpf.c"):
        obj = load(bpf, source, max_entries={"events": room})
        with obj.programs["on_read"].attach():
            bpf_syscalls.read(READS)
        lost[source] = obj.globals["lost"]
    before, after = lost.values()
    assert before >= READS - room // 24
    bpf_claim(
        after < 0.001 * READS,
        f"a burst of {READS:,} reads, a ring buffer of 256 KiB, nobody reading",
        before=before,
        after=after,
        unit="lost",
    )


@pytest.mark.bpf_claim("the maps take less than 200 MB", row=14)
@pytest.mark.bpf_requires(kernel=">=6.2")  # before, memlock is an estimate
def test_memory(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    maps = load(bpf, "after.bpf.c").maps
    memory = {name: maps[name].memlock for name in ("events", "totals")}
    bpf_claim(
        sum(memory.values()) < 200e6,
        ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in memory.items()),
    )


def test_in_a_full_buffer_events_are_lost_and_totals_are_not(
    bpf: Loader, bpf_syscalls: Syscalls
) -> None:
    room = {"events": 4096}  # bytes
    before = load(bpf, "before.bpf.c", max_entries=room)
    after = load(bpf, "after.bpf.c", max_entries=room, one_in=1)
    for obj in (before, after):
        with obj.programs["on_read"].attach():
            bpf_syscalls.read(READS)
        assert obj.globals["lost"] >= 0.99 * READS
    assert own_totals(after).count == READS


def test_threads_that_find_no_room_are_counted_together(
    bpf: Loader, bpf_syscalls: Syscalls
) -> None:
    after = load(bpf, "after.bpf.c", max_entries={"totals": 1})
    after.maps["totals"][get_native_id()] = (0, 0)  # that is all the room there is
    with after.programs["on_read"].attach():
        bpf_syscalls.read(500)
        bpf_syscalls.read(2000, threads=2)
    assert own_totals(after).count == 500
    assert after.globals["uncounted"] >= 2000


@pytest.mark.parametrize("source", [*EVERY_READ, "after.bpf.c"])
def test_other_processes_are_left_alone(bpf: Loader, bpf_syscalls: Syscalls, source: str) -> None:
    obj = load(bpf, source, tgid=os.getppid())
    obj.maps["events"].events()
    with obj.programs["on_read"].attach():
        bpf_syscalls.read(1000)
    assert own_events(obj) == []
    if "totals" in obj.maps:
        assert get_native_id() not in obj.maps["totals"]


def load(
    bpf: Loader, source: str, *, max_entries: Mapping[str, int] | None = None, **constants: int
) -> Object:
    """Load a program that looks at this process, if nothing else is said."""
    constants = {"tgid": os.getpid(), **constants}
    return bpf.load(source, globals=constants, max_entries=max_entries)


def own_events(obj: Object) -> list[Any]:
    """Return the events of this thread."""
    events = obj.maps["events"].events().read()
    return [event for event in events if event.thread == get_native_id()]


def reading(obj: Object, drive: Callable[[], object], *, times: int) -> float:
    """Return the ns of CPU that user space takes for what is driven so often.

    It adds up the events after each time, and the totals at the end.
    """
    events, spent, total = obj.maps["events"].events(), 0, 0
    for last in [False] * (times - 1) + [True]:
        drive()
        before = time.thread_time_ns()
        total += sum(event.requested for event in events.read())
        if last and "totals" in obj.maps:
            total += sum(one.requested for cpus in obj.maps["totals"].values() for one in cpus)
        spent += time.thread_time_ns() - before
    assert total > 0
    assert events.lost == 0
    return spent


def own_totals(obj: Object) -> Any:
    """Return the totals of this thread, over all CPUs."""
    return obj.maps["totals"].sum(get_native_id())
