"""Events by a ring buffer and by perf buffers: the same events, room, order, waking, and cost.

Real sends drive the programs at their hooks; bursts and edges are made by ``test_run``. Whether a
reader is woken is asked of epoll, as any reader does: this plugin's own would look by itself.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_bpf import Loader, Measure, Namespace, Object
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import CheckEquivalence, FindWorst

    Connection = tuple[socket.socket, socket.socket]

kprobe = pytest.param("on_call", marks=pytest.mark.bpf_requires(attach="kprobe"))
tracepoint = pytest.param(
    "on_return",
    marks=pytest.mark.bpf_requires(attach="tp_btf", btf_type="btf_trace_sock_send_length"),
)
either_hook = pytest.mark.parametrize("hook", [kprobe, tracepoint])

SIZES = [*range(1, 100), 1024, 16_384]
"""Bytes of one send each."""

IN_RING, IN_PERF = 8 + 32, 8 + 4 + 32 + 4
"""Bytes of an event with its header and padding."""

ROOM = 256 * 1024
"""Bytes of the ring buffer, and of the perf buffer of each CPU."""

BURST = 7000
"""Events that nobody reads meanwhile."""

CPUS = sorted(os.sched_getaffinity(0))[:2]


@pytest.fixture
def connection(bpf_netns: Namespace) -> Iterator[Connection]:
    """Both ends of a connection."""
    with bpf_netns.traffic.listen_tcp() as listening, bpf_netns.socket() as client:
        client.connect(listening.getsockname()[:2])
        server, _ = listening.accept()
        with server:
            yield client, server


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU: each has a perf buffer of its own."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CPUS[:1])
    yield
    os.sched_setaffinity(0, usable)


@either_hook
@pytest.mark.usefixtures("one_cpu")
def test_both_bring_the_same_events(bpf: Loader, connection: Connection, hook: str) -> None:
    before, after = load(bpf, hook)
    readers = [obj.maps["events"].events() for obj in (before, after)]
    with before.programs[hook].attach(), after.programs[hook].attach():
        send(connection, SIZES)
    old, new = (events.read(len(SIZES)) for events in readers)
    assert old == new
    assert [event.bytes for event in new] == SIZES
    assert {event.tgid for event in new} == {os.getpid()}


def test_both_leave_other_processes_alone(bpf: Loader) -> None:
    for obj in load(bpf, "on_run", tgid=os.getppid()):
        with obj.maps["events"].events() as events:
            obj.programs["on_run"].test_run(context=[100])
            assert events.read() == []
        assert obj.globals["lost"] == 0


@pytest.mark.usefixtures("one_cpu")
def test_what_finds_no_room_is_counted(bpf: Loader) -> None:
    for obj in load(bpf, "on_run", room=4096):
        with obj.maps["events"].events() as events:
            obj.programs["on_run"].test_run(context=[100], repeat=BURST)
            assert obj.globals["lost"] == BURST - len(events.read()) > 0


@pytest.mark.usefixtures("one_cpu")
@pytest.mark.bpf_claim("a ring buffer loses less than perf buffers of the same size", row=10)
def test_burst_that_nobody_reads(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    before, after = load(bpf, "on_run")
    stored = []
    for obj in (before, after):
        with obj.maps["events"].events() as events:
            obj.programs["on_run"].test_run(context=[100], repeat=BURST)
            stored.append(len(events.read()))
        assert stored[-1] + obj.globals["lost"] == BURST
    assert stored == [ROOM // IN_PERF, ROOM // IN_RING]
    lost = [(BURST - count) / BURST for count in stored]
    bpf_claim(
        lost[1] < lost[0],
        "lost of {} events in {} KiB: {:.0%} → {:.0%}".format(BURST, ROOM // 1024, *lost),
        before=stored[0],
        after=stored[1],
        unit="events stored",
    )


@pytest.mark.bpf_requires(cpus=2)
@pytest.mark.usefixtures("one_cpu")
@pytest.mark.bpf_claim("one buffer for all CPUs needs less memory", row=10)
def test_burst_of_one_cpu_has_all_the_room(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    cpus = 1 << (os.cpu_count() or 2).bit_length() - 1  # a ring buffer is a power of two
    before, _ = load(bpf, "on_run")
    _, after = load(bpf, "on_run", room=cpus * ROOM)
    stored = []
    for obj in (before, after):
        with obj.maps["events"].events() as events:
            obj.programs["on_run"].test_run(context=[100], repeat=cpus * BURST)
            stored.append(len(events.read()))
    assert stored == [ROOM // IN_PERF, cpus * ROOM // IN_RING]
    bpf_claim(
        stored[1] >= 2 * stored[0],
        f"of a burst on one of {cpus} CPUs, in {cpus * ROOM // 1024} KiB",
        before=stored[0],
        after=stored[1],
        unit="events stored",
    )


@pytest.mark.bpf_requires(cpus=2)
@pytest.mark.usefixtures("one_cpu")
def test_only_one_buffer_keeps_the_order_of_cpus(bpf: Loader) -> None:
    found = []
    for obj in load(bpf, "on_run"):
        with obj.maps["events"].events() as events:
            for number in range(20):
                os.sched_setaffinity(0, {CPUS[number % 2]})
                obj.programs["on_run"].test_run(context=[number])
            found.append([event.bytes for event in events.read(20)])
    assert found == [[*range(0, 20, 2), *range(1, 20, 2)], [*range(20)]]


def test_reader_that_keeps_up_is_woken_for_each_event(bpf: Loader) -> None:
    _, after = load(bpf, "on_run")
    assert wakes(after, 100) == 100


def test_reader_is_woken_once_for_so_many_bytes(bpf: Loader) -> None:
    _, after = load(bpf, "on_run", wake_at=10 * IN_RING)
    assert wakes(after, 100) == 10
    assert wakes(after, 109) == 10  # and nine are left for the next, or for ever


def test_what_is_left_needs_a_last_wake(bpf: Loader) -> None:
    _, after = load(bpf, "on_run", wake_at=10 * IN_RING)
    ring = after.maps["events"]
    with ring.events() as events, select.epoll() as waiting:
        waiting.register(ring.fd, select.EPOLLIN | select.EPOLLET)
        after.programs["on_run"].test_run(context=[100], repeat=9)
        assert waiting.poll(0) == []
        after.programs["wake"].test_run()
        assert waiting.poll(0) == [(ring.fd, select.EPOLLIN)]
        assert [event.bytes for event in events.read()] == [100] * 9


def test_reader_that_nobody_wakes_loses_what_finds_no_room(bpf: Loader) -> None:
    silent = bpf.load("silent.bpf.c", globals={"tgid": os.getpid()}, max_entries={"events": 4096})
    assert wakes(silent, 300) == 0
    assert silent.globals["lost"] == 300 - 4096 // IN_RING


def test_hole_in_an_event_shows_what_lay_there_before(bpf: Loader) -> None:
    padding = bpf.load("padding.bpf.c")
    secret = 0x5E5E5E5E5E5E5E5E
    with padding.maps["events"].events() as events:
        padding.programs["on_secret"].test_run(context=[secret], repeat=100)
        assert len(events.read()) == 100
        padding.programs["on_run"].test_run(context=[1], repeat=100)
        told = events.read()
    holes = {told.raw(number)[4:8] for number in range(len(told))}
    assert len(told) == 100
    assert secret.to_bytes(8, "little")[:4] in holes


@pytest.mark.bpf_requires(attach="kprobe", exact=True)
@pytest.mark.bpf_claim(
    "a ring buffer has 2-3 times the throughput of a perf buffer", row=10, verdict="holds in part"
)
def test_cost_of_an_event(
    bpf: Loader,
    bpf_measure: Measure,
    bpf_claim: ClaimCheck,
    connection: Connection,
) -> None:
    def costs(obj: Object, every: float | None = None) -> tuple[float, float]:
        program = obj.programs["on_call"]
        with obj.maps["events"].events(every=every) as events:

            def behind() -> None:
                send(connection, [64] * 20)

            def keeping_up() -> None:
                for _ in range(20):
                    send(connection, [64])
                    events.read()

            with program.attach(), named("nginx"):  # a longer name takes longer to copy
                runs = [bpf_measure(program, how, batches=5) for how in (behind, keeping_up)]
        late, in_time = (run.per_run - (run.empty or 0) for run in runs)
        return late, in_time

    old, new = load(bpf, "on_call", "on_run")
    perf, ring = costs(old), costs(new)
    lagging = costs(old, every=0.05)[1], costs(new, every=0.05)[1]
    _, batched = costs(load(bpf, "on_call", wake_at=20 * IN_RING)[1])
    whole = lagging[0] + reading(old), lagging[1] + reading(new)
    assert batched <= 0.5 * ring[1]  # how often a reader is woken matters as much
    assert lagging[1] <= 0.5 * lagging[0]
    bpf_claim(
        {
            "twice with a reader that looks by itself": 2 * lagging[1] <= lagging[0],
            "twice with one that is woken and behind": 2 * ring[0] <= perf[0],
            "twice with one that is woken and keeps up": 2 * ring[1] <= perf[1],
            "twice with reading": 2 * whole[1] <= whole[0],
        },
        f"woken and behind {perf[0]:.0f} → {ring[0]:.0f}, woken and keeping up {perf[1]:.0f} → "
        f"{ring[1]:.0f}, woken every 20 events {batched:.0f}; with reading in bulk "
        "{:,.0f} → {:,.0f}".format(*whole),
        before=lagging[0],
        after=lagging[1],
        unit="instructions an event, with a reader that looks by itself",
    )


def load(
    bpf: Loader, *programs: str, tgid: int = 0, room: int = ROOM, wake_at: int = 0
) -> tuple[Object, Object]:
    """Load what was before and what came after, with some of their programs."""
    constants = {"tgid": tgid or os.getpid()}
    before = bpf.load("before.bpf.c", programs=programs, globals=constants)
    after = bpf.load(
        "after.bpf.c",
        programs=[*programs, "wake"],
        globals={**constants, "wake_at": wake_at},
        max_entries={"events": room},
    )
    return before, after


def wakes(obj: Object, count: int) -> int:
    """Return how often so many events wake a reader, who then reads all there is."""
    ring, woken = obj.maps["events"], 0
    with ring.events() as events, select.epoll() as waiting:
        events.read()
        waiting.register(ring.fd, select.EPOLLIN | select.EPOLLET)
        for _ in range(count):
            obj.programs["on_run"].test_run(context=[100])
            if waiting.poll(0):
                woken += 1
                events.read()
    return woken


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


def test_both_send_the_same_events_for_every_input_tried(
    bpf: Loader, bpf_equivalent: CheckEquivalence
) -> None:
    before, after = (bpf.load(f"{one}.bpf.c", programs=["on_run"]) for one in ("before", "after"))
    with before.maps["events"].events() as old, after.maps["events"].events() as new:
        readers = {id(before): old, id(after): new}
        result = bpf_equivalent(
            before,
            after,
            program="on_run",
            ignore=["events"],
            states=(lambda obj: readers[id(obj)].read(), lambda obj: readers[id(obj)].read()),
            count=5000,
        )
    assert result.before.reach.blocks >= result.before.reach.all_blocks - 1  # there is room


@pytest.mark.bpf_requires(exact=True)
@pytest.mark.bpf_claim("a ring buffer costs less in the worst case, too", row=10)
def test_the_worst_case(bpf_worst: FindWorst, bpf_claim: ClaimCheck) -> None:
    before, after = (
        bpf_worst(f"{when}.bpf.c", program="on_run", programs=["on_run"], count=1000)
        for when in ("before", "after")
    )
    bpf_claim(
        after.instructions <= before.instructions,
        f"of BPF {before.insns} and {after.insns}",
        before=before.instructions,
        after=after.instructions,
        unit="instructions, the dearest event found",
    )
