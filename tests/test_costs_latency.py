"""Latency of events: whose time it is, percentiles, and stamps that are none."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_bpf.costs.figures.figure import METRICS
from pytest_bpf.costs.latency import Delays, latency
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.btf import Int, Member, Struct
from pytest_bpf.kernel.values.decoding import class_of
from pytest_bpf.objects.events.event_values import EventList, Reading

if TYPE_CHECKING:
    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
struct event { __u64 at; __u32 n; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 65536);
         __type(value, struct event); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __type(key, __u32);
         __type(value, struct event); } perf SEC(".maps");
const struct event *unused __attribute__((unused));
__u32 next; bool unstamped;
SEC("raw_tp") int put(void *ctx) {
    struct event e = { .at = unstamped ? 0 : bpf_ktime_get_ns(), .n = next++ };
    bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &e, sizeof(e));
    return bpf_ringbuf_output(&ring, &e, sizeof(e), 0);
}
"""
MS = 1_000_000


@pytest.fixture
def obj(load: Load) -> Object:
    return load(SOURCE)


def events(*stamps: int, asleep: int, woken: int, read: int) -> EventList:
    made = class_of(Struct("event", 8, (Member("at", Int("__u64", 8), 0),)))
    readings = (Reading(len(stamps), asleep, woken, read),)
    return EventList([made((stamp,)) for stamp in stamps], "ring", 0, readings)


@pytest.mark.parametrize("buffer", ["ring", "perf"])
def test_it_lies_between_what_the_test_itself_measures(obj: Object, buffer: str) -> None:
    reader = obj.maps[buffer].events()
    before = time.monotonic_ns()
    for _ in range(50):
        obj.programs["put"].test_run()
    found = latency(reader.read(50), "at")
    took = time.monotonic_ns() - before
    assert found.count == 50
    assert 0 < found.p50 <= found.p95 <= found.p99 <= found.max < took
    assert found.wake_up.max == 0
    assert found.consumer.max == found.max


@pytest.mark.parametrize("buffer", ["ring", "perf"])
def test_a_consumer_that_is_late_has_the_delay(obj: Object, buffer: str) -> None:
    reader = obj.maps[buffer].events()
    obj.programs["put"].test_run()
    time.sleep(0.03)
    found = latency(reader.read(1), "at")
    assert found.consumer.p50 > 30 * MS
    assert found.wake_up.p50 == 0


@pytest.mark.parametrize("buffer", ["ring", "perf"])
def test_a_consumer_that_sleeps_is_woken(obj: Object, buffer: str) -> None:
    reader = obj.maps[buffer].events()
    later = threading.Timer(0.05, obj.programs["put"].test_run)
    later.start()
    found = latency(reader.read(1, timeout=30), "at")
    later.join()
    assert 0 < found.wake_up.p50 < found.p50
    assert found.wake_up.p50 + found.consumer.p50 == found.p50


def test_the_two_parts() -> None:
    """Stamped before it slept, while it slept, and after it was woken."""
    found = latency(events(50, 120, 210, asleep=100, woken=200, read=230), "at")
    assert (found.p50, found.max) == (110, 180)
    assert (found.wake_up.max, found.wake_up.p50) == (100, 80)
    assert (found.consumer.max, found.consumer.p50) == (80, 30)


def test_percentiles_are_delays_that_were_seen() -> None:
    found = Delays.summarize(np.arange(1, 1001))
    assert (found.count, found.p50, found.p95, found.p99, found.max) == (1000, 500, 950, 990, 1000)
    one = Delays.summarize(np.array([7]))
    assert (one.p50, one.p99, one.max) == (7, 7, 7)


def test_bounds_hold_the_true_value() -> None:
    """Of 400 samples about 380 do; fewer than 360 by chance once in millions of years."""
    random = np.random.default_rng(1)
    for share, index in ((0.5, 0), (0.95, 1), (0.99, 2)):
        true = -np.log(1 - share) * MS
        bounds = [Delays.summarize(random.exponential(MS, 1000)).bounds[index] for _ in range(400)]
        holding = sum(lower <= true <= upper for lower, upper in bounds)
        assert 360 <= holding < 400


def test_figures(obj: Object) -> None:
    reader = obj.maps["ring"].events()
    for _ in range(20):
        obj.programs["put"].test_run()
    found = latency(reader.read(20), "at")
    figures = {figure.metric: figure for figure in found.figures("map ring")}
    names = ["latency_p50", "latency_p95", "latency_p99", "latency_max", "consumer_p99"]
    assert list(figures) == names
    for figure in figures.values():
        assert METRICS[figure.metric].unit == "ns"
        assert figure.subject == "map ring"
        assert figure.lower is not None
        assert figure.value is not None
        assert figure.upper is not None
        assert figure.lower <= figure.value <= figure.upper
    assert figures["latency_p99"].value == found.p99
    assert f"p99 {found.p99} ns" in str(found)


def test_what_is_no_stamp(obj: Object) -> None:
    reader = obj.maps["ring"].events()
    with pytest.raises(BpfError, match="no event was read, so there is no latency"):
        latency(reader.read(), "at")
    obj.programs["put"].test_run()
    told = reader.read(1)
    with pytest.raises(BpfError, match="no latency by the stamp 'att': event has no member 'att'"):
        latency(told, "att")
    obj.globals["unstamped"] = True
    obj.programs["put"].test_run()
    with pytest.raises(BpfError, match=r"1 of 1 events have no time .*\(event 0: 0, read at \d+"):
        latency(reader.read(1), "at")
    with pytest.raises(BpfError, match="2 of 3 events"):
        latency(events(240, 20, 250, asleep=0, woken=0, read=230), "at")
