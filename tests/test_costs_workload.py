"""What a workload cost: counts that are certain, times with their interval, events, a consumer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import BpfError, Figure, Syscalls, UnknownNameError, costs_of
from pytest_bpf.costs.figures.figure import METRICS
from pytest_bpf.kernel.sys import exact

if TYPE_CHECKING:
    from pytest_bpf import Object
    from tests.conftest import Load

PROGRAM = """
const volatile __u32 only = 0;
__u64 dropped;
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64);
         __type(key, __u64); __type(value, __u64); } table SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_getpid") int put(void *ctx)
{
    __u64 *event;

    if (bpf_get_current_pid_tgid() >> 32 != only)
        return 0;
    event = bpf_ringbuf_reserve(&events, 8, 0);
    if (!event) {
        __sync_fetch_and_add(&dropped, 1);
        return 0;
    }
    *event = 1;
    bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
    return 0;
}
SEC("tracepoint/syscalls/sys_enter_getppid") int idle(void *ctx) { return 0; }
SEC("xdp") int looping(struct xdp_md *ctx)
{
    for (int i = 0; i < 2000; i++)
        asm volatile("r1 += 1" ::: "r1");
    return 2;
}
"""

NO_COUNT = pytest.mark.skipif(exact.is_exact(), reason="here time is a count of instructions")


@pytest.fixture
def obj(load: Load) -> Object:
    return load(PROGRAM, globals={"only": os.getpid()})


def getpid(count: int = 100) -> None:
    Syscalls().getpid(count)


def figures(found: tuple[Figure, ...]) -> dict[tuple[str, str], Figure]:
    return {(figure.metric, figure.subject): figure for figure in found}


@NO_COUNT
def test_a_workload_in_rounds(obj: Object) -> None:
    obj.programs["put"].attach()
    costs = costs_of(obj, getpid, rounds=10)
    found = figures(costs.figures())
    put = costs.programs["put"]
    assert costs.rounds == len(put.per_run.samples) == len(put.per_run.reference) == 10
    assert put.run_cnt >= 1000
    assert put.missed == 0
    run_time = found["run_time", "prog put"]
    assert run_time.lower is not None
    assert run_time.upper is not None
    assert run_time.value is not None
    assert run_time.lower <= run_time.value <= run_time.upper
    assert run_time.instrument == "clock"
    assert 0 < found["cpu", "prog put"].value < 1  # type: ignore[operator]
    assert found["cpu", ""].value == found["cpu", "prog put"].value
    idle = found["run_time", "prog idle"]
    assert (idle.value, idle.why_not) == (None, "never ran")
    assert found["run_cnt", "prog idle"].value == 0


def test_every_figure_is_of_a_known_metric(obj: Object) -> None:
    obj.maps["events"].events()
    costs = costs_of(obj, partial(obj.programs["looping"].test_run, bytes(64)), rounds=2)
    found = costs.figures()
    assert {figure.metric for figure in found} <= set(METRICS)
    assert len(figures(found)) == len(found), "two figures of one metric and subject"


def test_what_the_verifier_and_the_kernel_say(obj: Object) -> None:
    program = obj.programs["looping"]
    found = figures(costs_of(obj, partial(program.test_run, bytes(64)), rounds=1).figures())
    assert found["verified_insns", "prog looping"].value == program.verified_insns > 4000
    assert found["total_states", "prog looping"].value == program.verifier.total_states > 0
    assert found["stack_depth", "prog looping"].value == program.verifier.stack_depth
    assert found["prog_size_jited", "prog looping"].value == program.prog_size_jited
    table = found["map_memory", "map table"]
    assert (table.value, table.lower) == (table.upper, table.value)
    parts = [
        figure.value
        for (metric, subject), figure in found.items()
        if subject and metric in {"memory", "map_memory"}
    ]
    assert found["memory", ""].value == sum(filter(None, parts))


def test_a_longer_program_costs_more(load: Load) -> None:
    short, long = (PROGRAM.replace("2000", count) for count in ("10", "2000"))
    costs = []
    for text in (short, long):
        obj = load(text)
        drive = partial(obj.programs["looping"].test_run, bytes(64), repeat=100)
        costs.append(costs_of(obj, drive, rounds=9).programs["looping"].per_run)
    assert costs[0].upper < costs[1].lower  # type: ignore[operator]


def test_a_block_is_one_batch_without_an_interval(obj: Object) -> None:
    program = obj.programs["looping"]
    with costs_of(obj) as span:
        with pytest.raises(BpfError, match="known at the end of the 'with'"):
            _ = span.costs
        program.test_run(bytes(64), repeat=50)
    found = span.costs.programs["looping"]
    assert found.run_cnt == 50
    assert found.per_run.lower is found.per_run.upper is None
    assert found.per_run.value == found.per_run.samples[0]


def test_a_block_in_batches(obj: Object) -> None:
    program = obj.programs["looping"]
    with costs_of(obj) as span:
        for _ in range(5):
            program.test_run(bytes(64), repeat=50)
            span.batch()
    assert span.costs.rounds == 5
    assert span.costs.programs["looping"].run_cnt == 250
    assert span.costs.programs["looping"].per_run.lower is not None


def test_a_block_that_fails_has_no_costs(obj: Object) -> None:
    span = costs_of(obj)
    with pytest.raises(ZeroDivisionError), span:
        _ = 1 / 0
    with pytest.raises(BpfError, match="known at the end"):
        _ = span.costs


def test_events_delivered_and_pending(obj: Object) -> None:
    obj.programs["put"].attach()
    reader = obj.maps["events"].events()
    with costs_of(obj, lost="dropped") as span:
        getpid(60)
        reader.read()
        getpid(40)
    events = span.costs.events["events"]
    assert events.lost == 0
    assert events.generated == events.delivered + events.pending
    assert events.generated >= 100
    assert events.pending >= 40
    assert events.loss == 0


def test_events_that_found_no_room(obj: Object) -> None:
    """4096 bytes hold 255 records of 16: one is always left free."""
    obj.programs["put"].attach()
    reader = obj.maps["events"].events()
    with costs_of(obj, lost={"events": "dropped"}) as span:
        getpid(1000)
        reader.read()
    found = figures(span.costs.figures())
    events = span.costs.events["events"]
    lost = obj.globals["dropped"]
    assert (events.delivered, events.lost) == (255, lost)
    assert events.generated == 255 + lost >= 1000
    assert found["loss", "map events"].value == lost / (255 + lost)
    assert found["events_per_second", "map events"].value == pytest.approx(255 / events.seconds)


def test_a_loss_that_nobody_counts(obj: Object) -> None:
    obj.programs["put"].attach()
    reader = obj.maps["events"].events()
    with costs_of(obj) as span:
        getpid(1000)
        reader.read()
    loss = figures(span.costs.figures())["loss", "map events"]
    assert loss.value is None
    assert "was full, so events may be lost" in loss.why_not


LATE = """
struct event { __u64 at; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096);
         __type(value, struct event); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __type(key, __u32);
         __type(value, struct event); } perf SEC(".maps");
SEC("raw_tp") int put(void *ctx) {
    struct event e = { .at = bpf_ktime_get_ns() };
    bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &e, sizeof(e));
    return bpf_ringbuf_output(&ring, &e, sizeof(e), 0);
}
"""


def test_the_latency_of_what_is_read_meanwhile(load: Load) -> None:
    """By either way of reading, by a reader that was there before and one that comes later."""
    obj = load(LATE)
    put, ring = obj.programs["put"], obj.maps["ring"]
    before = ring.events()
    put.test_run()
    before.read(1)
    with costs_of(obj, latency={"ring": "at"}) as span:
        put.test_run()
        put.test_run()
        before.read(2)
        put.test_run()
        time.sleep(0.03)
        ring.events(every=1.0).read_array(1)
    put.test_run()
    ring.events(every=1.0).read(1)
    found = span.costs.events["ring"].latency
    assert found is not None
    assert found.count == 3
    assert found.max > 30_000_000 > found.p50
    assert figures(span.costs.figures())["latency_max", "map ring"].value == found.max


def test_the_latency_of_each_buffer_that_is_read(load: Load) -> None:
    obj = load(LATE)
    reader = obj.maps["perf"].events()

    def work() -> None:
        obj.programs["put"].test_run()
        reader.read(1)

    costs = costs_of(obj, work, rounds=4, latency="at")
    assert list(costs.events) == ["perf"]
    assert costs.events["perf"].latency.count == 4  # type: ignore[union-attr]


def test_no_event_has_no_latency(load: Load) -> None:
    obj = load(LATE)
    obj.maps["ring"].events()
    costs = costs_of(obj, obj.programs["put"].test_run, rounds=1, latency="at")
    assert costs.events["ring"].latency is None
    assert not [figure for figure in costs.figures() if figure.metric.startswith("latency")]


def test_a_stamp_that_is_none(load: Load) -> None:
    obj = load(LATE)
    with pytest.raises(UnknownNameError, match="did you mean 'ring'"):
        costs_of(obj, latency={"rign": "at"})
    reader = obj.maps["ring"].events()

    def work() -> None:
        obj.programs["put"].test_run()
        reader.read(1)

    with pytest.raises(BpfError, match="no latency by the stamp 'when'"):
        costs_of(obj, work, latency="when")


def test_variables_that_are_not_there(obj: Object) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dropped'"):
        costs_of(obj, lost="droped")
    with pytest.raises(UnknownNameError, match="did you mean 'events'"):
        costs_of(obj, lost={"event": "dropped"})
    with pytest.raises(BpfError, match="'table' is a hash: it has no events"):
        costs_of(obj, lost={"table": "dropped"})


def test_no_round_at_all(obj: Object) -> None:
    with pytest.raises(BpfError, match="one round at least: rounds=0"):
        costs_of(obj, getpid, rounds=0)


BUSY = """
import sys
print(flush=True)
while sys.stdin.readline():
    for _ in range(200_000): pass
    print(flush=True)
"""


def test_a_consuming_process(obj: Object) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        child.stdout.readline()

        def work() -> None:
            assert child.stdin
            assert child.stdout
            child.stdin.write("\n")
            child.stdin.flush()
            child.stdout.readline()

        costs = costs_of(obj, work, rounds=5, consumer=child)
        alone = costs_of(obj, work, rounds=1)
        assert costs.cpu.value is not None
        assert 0.05 < costs.cpu.value < 1.05
        assert costs.programs["put"].cpu.value == 0
        assert costs.memory.value > alone.memory.value + 1_000_000  # type: ignore[operator]
        child.stdin.close()
    with pytest.raises(BpfError, match=rf"process {child.pid}, does not run any more"):
        costs_of(obj, consumer=child)


def test_a_consuming_thread(obj: Object) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    with pytest.raises(BpfError, match="does not run: start it first"):
        costs_of(obj, consumer=thread)
    thread.start()
    try:
        costs = costs_of(obj, partial(getpid, 2000), rounds=3, consumer=thread)
        assert costs.cpu.value == pytest.approx(0, abs=0.01)
    finally:
        end.set()
        thread.join()


def test_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makefile(
        ".bpf.c",
        run="""
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        char LICENSE[] SEC("license") = "GPL";
        SEC("xdp") int run(struct xdp_md *ctx) { return XDP_PASS; }
    """,
    )
    pytester.makepyfile("""
        def test_it(bpf, bpf_costs):
            obj = bpf.load("run.bpf.c")
            costs = bpf_costs(obj, lambda: obj.programs["run"].test_run(bytes(64)), rounds=7)
            assert costs.programs["run"].run_cnt == 7
    """)
    assert pytester.runpytest_subprocess("--bpf-strict").ret == 0
