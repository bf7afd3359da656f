"""Filtering in the kernel: the events that user space would have kept, and no others.

What depends on a send's size and its sender's name alone is run by ``test_run``, which runs a
program as the thread that calls it; then nobody else's sends are in the buffer.
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_bpf import Loader, Measure, Namespace, Object
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import FindWorst

    Connection = tuple[socket.socket, socket.socket]

kprobe = pytest.param("on_call", marks=pytest.mark.bpf_requires(attach="kprobe"))
tracepoint = pytest.param(
    "on_return",
    marks=pytest.mark.bpf_requires(attach="tp_btf", btf_type="btf_trace_sock_send_length"),
)
either_hook = pytest.mark.parametrize("hook", [kprobe, tracepoint])

SIZES = [0, 1, 1023, 1024, 1025, 16_384]
"""Bytes of one send each."""

NAMES = ["nginx", "nginxfoo", "ng", "ngrok", "other"]
"""Names of senders; the first is the one that is wanted."""

RECORD = 8 + 24
"""Bytes of an event with its header in the ring buffer."""

RATES = [5, 10, 50, 100]
"""Percent of the sends that pass."""


@pytest.fixture
def connection(bpf_netns: Namespace) -> Iterator[Connection]:
    """Both ends of a connection."""
    with bpf_netns.traffic.listen_tcp() as listening, bpf_netns.socket() as client:
        client.connect(listening.getsockname()[:2])
        server, _ = listening.accept()
        with server:
            yield client, server


@either_hook
def test_what_arrives_is_what_user_space_would_keep(
    bpf: Loader, connection: Connection, hook: str
) -> None:
    before, after = load(bpf, hook)
    with before.programs[hook].attach(), after.programs[hook].attach():
        for name in NAMES:
            with named(name):
                send(connection, SIZES[1:])
    found = [event for event in read(before) if event.tgid == os.getpid()]
    assert [(event.comm, event.bytes) for event in found] == [
        (name, size) for name in NAMES for size in SIZES[1:]
    ]
    assert read(after) == [event for event in found if wanted(event)]


def test_the_edges_of_the_filter(bpf: Loader) -> None:
    before, after = load(bpf, "on_run")
    for obj in (before, after):
        for name in NAMES:
            with named(name):
                run(obj, SIZES)
    kept = read(after)
    assert kept == [event for event in read(before) if wanted(event)]
    assert [event.bytes for event in kept] == [1024, 1025, 16_384]


def test_other_processes_are_filtered_out(bpf: Loader) -> None:
    _, after = load(bpf, "on_run", tgid=os.getppid())
    with named("nginx"):
        run(after, SIZES)
    assert read(after) == []


def test_what_is_filtered_out_takes_nobodys_room(bpf: Loader) -> None:
    before, after = load(bpf, "on_run", room=4096)
    with named("nginx"):
        for obj in (before, after):
            run(obj, sends(rate=10, count=1000))
    found = read(before)
    assert len(found) + before.globals["lost"] == 1000
    assert len(found) < 4096 / RECORD
    assert sum(map(wanted, found)) < 20
    assert (len(read(after)), after.globals["lost"]) == (100, 0)


def test_what_finds_no_room_is_counted(bpf: Loader) -> None:
    for obj in load(bpf, "on_run", room=4096):
        with named("nginx"):
            run(obj, [2048] * 200)
        assert obj.globals["lost"] == 200 - len(read(obj)) > 0


@pytest.mark.bpf_claim(
    "filtering in the kernel sends 90 % less to user space", row=12, verdict="holds in part"
)
def test_data_follow_what_passes(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    before, after = load(bpf, "on_run")
    left = {}
    for rate in RATES:
        with named("nginx"):
            for obj in (before, after):
                run(obj, sends(rate))
        old, new = RECORD * len(read(before)), RECORD * len(read(after))
        assert new == old * rate // 100 == RECORD * rate
        left[rate] = new / old
    bpf_claim(
        {f"{rate} % passing": share <= 0.1 for rate, share in left.items()},
        "bytes " + by_rate(left),
        before=RECORD * 100,
        after=RECORD * 10,
        unit="bytes for 100 sends, 10 of which pass",
    )


@pytest.mark.bpf_requires(attach="kprobe", exact=True)
@pytest.mark.bpf_claim(
    "filtering in the kernel takes 80 % less CPU", row=12, verdict="holds in part"
)
def test_cost_follows_what_passes(
    bpf: Loader,
    bpf_measure: Measure,
    bpf_claim: ClaimCheck,
    connection: Connection,
) -> None:
    runs: dict[int, list[float]] = {rate: [] for rate in RATES}
    wholes: dict[int, list[float]] = {rate: [] for rate in RATES}
    for obj in load(bpf, "on_call", "on_run"):
        program, events = obj.programs["on_call"], obj.maps["events"].events()
        for rate in RATES:

            def drive(sizes: Sequence[int] = sends(rate)) -> None:
                send(connection, sizes)
                events.read()  # noqa: B023

            with named("nginx"):
                with program.attach():
                    cost = bpf_measure(program, drive, batches=5)
                own = cost.per_run - (cost.empty or 0)
                runs[rate].append(own)
                wholes[rate].append(own + reading(obj, rate))
    run = {rate: after / before for rate, (before, after) in runs.items()}
    whole = {rate: after / before for rate, (before, after) in wholes.items()}
    assert run[5] < run[10] <= 0.4
    assert whole[5] < whole[10] <= 0.4
    assert 0.4 <= run[50] <= 0.9
    assert 1 <= run[100] <= 1.5  # who filters nothing pays for the filter
    before, after = runs[10]
    bpf_claim(
        {f"{rate} % passing": share <= 0.2 for rate, share in run.items()},
        f"by % passing {by_rate(run)}; with reading as Python objects {by_rate(whole)}",
        before=before,
        after=after,
        unit="instructions a send, 10 % passing",
    )


def load(bpf: Loader, *programs: str, tgid: int = 0, room: int = 1 << 20) -> tuple[Object, Object]:
    """Load what was before and what came after, with some of their programs."""
    options: dict[str, Any] = {"programs": programs, "max_entries": {"events": room}}
    before = bpf.load("before.bpf.c", **options)
    return before, bpf.load("after.bpf.c", globals={"tgid": tgid or os.getpid()}, **options)


def sends(rate: int, count: int = 100) -> list[int]:
    """Return the sizes of sends of which so many percent pass, spread evenly."""
    return [2048 if number * rate % 100 < rate else 64 for number in range(count)]


def run(obj: Object, sizes: Sequence[int]) -> None:
    """Run a program as if this thread had sent so many bytes, once each."""
    for size in sizes:
        obj.programs["on_run"].test_run(context=[size])


def read(obj: Object) -> list[Any]:
    """Return the events that wait."""
    with obj.maps["events"].events() as events:
        return list(events.read())


def wanted(event: Any) -> bool:
    """Say whether user space would keep an event of this process."""
    return bool(event.comm == NAMES[0] and event.bytes >= 1024)


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


def reading(obj: Object, rate: int) -> float:
    """Return the instructions a send of reading a thousand sends at once, as Python objects."""
    took = []
    events, program = obj.maps["events"].events(), obj.programs["on_run"]
    for _ in range(3):
        program.test_run(context=[2048], repeat=10 * rate)
        if rate < 100:
            program.test_run(context=[64], repeat=1000 - 10 * rate)
        begin = time.perf_counter_ns()
        events.read()
        took.append((time.perf_counter_ns() - begin) / 1000)
    return median(took)


def by_rate(left: dict[int, float]) -> str:
    """Return what is left by what passes, for the eye."""
    return ", ".join(f"{rate} %: x {share:.2f}" for rate, share in left.items())


@pytest.mark.bpf_requires(exact=True)
@pytest.mark.bpf_claim(
    "filtering in the kernel costs no more in the worst case", row=12, verdict="refuted"
)
def test_the_worst_case(bpf_worst: FindWorst, bpf_claim: ClaimCheck) -> None:
    before, after = (
        bpf_worst(f"{when}.bpf.c", program="on_run", programs=["on_run"], count=2000)
        for when in ("before", "after")
    )
    bpf_claim(
        after.instructions <= before.instructions,
        f"of BPF {before.insns} and {after.insns}",
        before=before.instructions,
        after=after.instructions,
        unit="instructions, the dearest send found",
    )
