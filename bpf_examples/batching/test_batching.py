"""A hundred events in one record: none is lost, also when there is no room, and none is forgotten.

Real sends drive the programs at their hooks; edges are made by ``test_run``, on one CPU, because
each CPU has a batch of its own.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import DifferenceError, VerifierError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_bpf import Loader, Measure, Namespace, Object
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import CheckEquivalence

    Connection = tuple[socket.socket, socket.socket]

kprobe = pytest.param("on_call", marks=pytest.mark.bpf_requires(attach="kprobe"))
tracepoint = pytest.param(
    "on_return",
    marks=pytest.mark.bpf_requires(attach="tp_btf", btf_type="btf_trace_sock_send_length"),
)
either_hook = pytest.mark.parametrize("hook", [kprobe, tracepoint])

BATCH = 100
"""Events of a full batch."""

RECORD, RECORDS = 8 + 4 + 24 + 4, 8 + 4 + 4 + BATCH * 24 + 8
"""Bytes in the perf buffer of one event, and of one batch, with header and padding."""

SIZES = [*range(1, 240), 1024, 16_384]
"""Bytes of one send each."""

CPUS = sorted(os.sched_getaffinity(0))[:2]


@pytest.fixture
def connection(bpf_netns: Namespace) -> Iterator[Connection]:
    """Both ends of a connection."""
    with bpf_netns.traffic.listen_tcp() as listening, bpf_netns.socket() as client:
        client.connect(listening.getsockname()[:2])
        server, _ = listening.accept()
        with server:
            yield client, server


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CPUS[:1])
    yield
    os.sched_setaffinity(0, usable)


@either_hook
def test_both_bring_the_same_events(bpf: Loader, connection: Connection, hook: str) -> None:
    before, after = load(bpf, hook)
    with before.maps["events"].events() as events, after.maps["events"].events() as batches:
        with before.programs[hook].attach(), after.programs[hook].attach():
            send(connection, SIZES)
        old, new = list(events.read()), unpacked(batches.read())
        assert len(new) == len(SIZES) // BATCH * BATCH
        after.programs["flush"].test_run()
        new += unpacked(batches.read())
    assert [event.bytes for event in old] == SIZES
    assert new == old


def test_what_fills_no_batch_stays_behind_until_it_is_flushed(bpf: Loader) -> None:
    _, after = load(bpf, "on_run")
    with after.maps["events"].events() as batches:
        for count in (0, 1, 99, 100, 101, 250):
            run(after, count)
            full = unpacked(batches.read())
            assert len(full) == count // BATCH * BATCH
            assert residue(after) == count % BATCH
            for _ in range(2):
                after.programs["flush"].test_run()
            rest = batches.read()
            assert len(rest) == (count % BATCH > 0)  # no empty batches, and none twice
            assert [event.bytes for event in full + unpacked(rest)] == list(range(count))
            assert residue(after) == 0


@pytest.mark.bpf_requires(cpus=2)
def test_each_cpu_has_its_own_batch(bpf: Loader) -> None:
    _, after = load(bpf, "on_run")
    with after.maps["events"].events() as batches:
        for cpu in CPUS:
            os.sched_setaffinity(0, {cpu})
            run(after, 60)
        assert batches.read() == []
        assert [after.maps["batches"][0][cpu].count for cpu in CPUS] == [60, 60]
        for cpu in CPUS:
            after.programs["flush"].test_run(cpu=cpu)
        assert len(unpacked(batches.read())) == 120


def test_nothing_is_lost_unseen_while_nobody_reads(bpf: Loader) -> None:
    _, after = load(bpf, "on_run")
    run(after, 250)
    assert (residue(after), after.globals["lost"]) == (100, 150)
    with after.maps["events"].events() as batches:
        run(after, 1)  # now there is room for the old ones
        assert [event.bytes for event in unpacked(batches.read())] == list(range(100))
        assert (residue(after), after.globals["lost"]) == (1, 150)


def test_a_batch_that_finds_no_room_is_kept(bpf: Loader) -> None:
    _, after = load(bpf, "on_run")
    count = 12_000
    with after.maps["events"].events() as batches:
        run(after, count)
        found = unpacked(batches.read())
    assert [event.bytes for event in found] == list(range(len(found)))
    assert len(found) == 256 * 1024 // RECORDS * BATCH
    assert residue(after) == BATCH
    assert len(found) + residue(after) + after.globals["lost"] == count


def test_a_count_that_is_reset_anyway_loses_batches_unseen(bpf: Loader) -> None:
    careless = bpf.load("careless.bpf.c", globals={"tgid": os.getpid()})
    run(careless, 250)
    assert (residue(careless), careless.globals["lost"]) == (50, 0)  # and 200 are nowhere


def test_a_count_that_is_read_again_is_not_the_one_compared(bpf: Loader) -> None:
    with pytest.raises(VerifierError, match="unbounded memory access"):
        bpf.load("reread.bpf.c")


def test_both_leave_other_processes_alone(bpf: Loader) -> None:
    for obj in load(bpf, "on_run", tgid=os.getppid()):
        with obj.maps["events"].events() as events:
            run(obj, 100)
            assert events.read() == []
    assert residue(obj) == 0


@pytest.mark.bpf_claim(
    "a hundred events in a record are less data", row=11, verdict="holds in part"
)
def test_records_are_a_hundredth_and_bytes_are_not(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    count, records = 4050, []
    for obj in load(bpf, "on_run"):
        with obj.maps["events"].events() as events:
            run(obj, count)
            records.append(len(events.read()))
    assert records[0] == count
    assert BATCH * records[1] + residue(obj) == count
    sent = records[0] * RECORD, records[1] * RECORDS
    assert 0.5 <= sent[1] / sent[0] <= 0.7
    bpf_claim(
        {"records": records[1] <= 0.01 * records[0], "bytes": sent[1] <= 0.1 * sent[0]},
        "{:,} → {:,} bytes".format(*sent) + f", {residue(obj)} events stay behind",
        before=records[0],
        after=records[1],
        unit="records",
    )


@pytest.mark.bpf_requires(attach="kprobe", exact=True)
@pytest.mark.bpf_claim("sending a hundred events at once costs less than one by one", row=11)
def test_a_batch_costs_a_fraction(
    bpf: Loader,
    bpf_measure: Measure,
    bpf_claim: ClaimCheck,
    connection: Connection,
) -> None:
    runs, wholes = [], []
    for obj in load(bpf, "on_call", "on_run"):
        program = obj.programs["on_call"]
        with obj.maps["events"].events() as events:

            def drive() -> None:
                send(connection, [64] * BATCH)
                events.read()

            with program.attach(), named("nginx"):  # a longer name takes longer to copy
                cost = bpf_measure(program, drive, batches=5)
            own = cost.per_run - (cost.empty or 0)
            runs.append(own)
            wholes.append(own + reading(obj))
    whole = wholes[1] / wholes[0]
    bpf_claim(
        runs[1] <= 0.25 * runs[0] and whole <= 0.7,
        "with reading in bulk {:,.0f} → {:,.0f}".format(*wholes),
        before=runs[0],
        after=runs[1],
        unit="instructions a send",
    )


def load(bpf: Loader, *programs: str, tgid: int = 0) -> tuple[Object, Object]:
    """Load what was before and what came after, with some of their programs."""
    constants = {"tgid": tgid or os.getpid()}
    before = bpf.load("before.bpf.c", programs=programs, globals=constants)
    return before, bpf.load("after.bpf.c", programs=[*programs, "flush"], globals=constants)


def run(obj: Object, count: int) -> None:
    """Run a program as if this process had sent 0 bytes, 1, 2 and so on."""
    for size in range(count):
        obj.programs["on_run"].test_run(context=[size])


def unpacked(batches: Sequence[Any]) -> list[Any]:
    """Return the events of all batches."""
    return [event for batch in batches for event in batch.events[: batch.count]]


def residue(obj: Object) -> int:
    """Return how many events the batches of all CPUs hold."""
    return sum(batch.count for batch in obj.maps["batches"][0])


def send(connection: Connection, sizes: Sequence[int]) -> None:
    """Send so many bytes, one call each, and take them out at the other end."""
    client, server = connection
    for size in sizes:
        assert client.send(bytes(size)) == size
        assert len(server.recv(size, socket.MSG_WAITALL)) == size


@contextmanager
def named(name: str) -> Iterator[None]:
    """Call this thread so for a while."""
    comm = Path("/proc/thread-self/comm")
    own = comm.read_text().rstrip("\n")
    comm.write_text(name)
    try:
        yield
    finally:
        comm.write_text(own)


def reading(obj: Object) -> float:
    """Return the instructions an event of reading a thousand at once, in bulk."""
    took, events = [], obj.maps["events"].events()
    for _ in range(3):
        obj.programs["on_run"].test_run(context=[64], repeat=1000)
        begin = time.perf_counter_ns()
        events.read_array()
        took.append((time.perf_counter_ns() - begin) / 1000)
    return median(took)


def test_a_batch_that_is_emptied_without_room_is_found_without_a_hint(
    bpf_equivalent: CheckEquivalence,
) -> None:
    with pytest.raises(DifferenceError, match=r"map 'batches'|variable 'lost'"):
        bpf_equivalent(
            "after.bpf.c",
            "careless.bpf.c",
            program="on_run",
            programs=["on_run"],
            ignore=["events"],  # nobody reads them, so there is never room
            count=5000,
        )
