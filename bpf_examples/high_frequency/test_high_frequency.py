"""Thousands of reads: exact totals from the kernel, and a hundredth of the data.

Everything in a process reads now and then, pytest's own threads too. The programs look at one
process alone, and the tests at one thread of it: their own.
"""

from __future__ import annotations

import os
from threading import get_native_id
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf import Loader, Object, Syscalls

pytestmark = pytest.mark.bpf_requires(attach="tracepoint", map_type=["ringbuf", "percpu_hash"])

READS = 20_000


def test_totals_equal_the_events(bpf: Loader, bpf_syscalls: Syscalls) -> None:
    before, after = load(bpf, "before.bpf.c"), load(bpf, "after.bpf.c")
    for obj in (before, after):
        with obj.programs["on_read"].attach():
            bpf_syscalls.read(3000, size=64)
            bpf_syscalls.read(10, size=0)
    events = own_events(before)
    assert [event.requested for event in events] == [64] * 3000 + [0] * 10
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


def test_data_to_user_space_is_at_most_two_percent(bpf: Loader, bpf_syscalls: Syscalls) -> None:
    sent = {}
    for source in ("before.bpf.c", "after.bpf.c"):
        obj = load(bpf, source)
        with obj.programs["on_read"].attach():
            bpf_syscalls.read(READS)
        events = obj.maps["events"].events().read()
        sent[source] = (16 + 8) * len(events)  # an event, and the ring buffer's header
    totals = obj.maps["totals"]
    each_cpus = len(totals) * (totals.key_size + 16 * len(totals[get_native_id()]))
    assert sent["after.bpf.c"] + each_cpus <= 0.02 * sent["before.bpf.c"]


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


@pytest.mark.parametrize("source", ["before.bpf.c", "after.bpf.c"])
def test_other_processes_are_left_alone(bpf: Loader, bpf_syscalls: Syscalls, source: str) -> None:
    obj = load(bpf, source, tgid=os.getppid())
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


def own_totals(obj: Object) -> Any:
    """Return the totals of this thread, over all CPUs."""
    return obj.maps["totals"].sum(get_native_id())
