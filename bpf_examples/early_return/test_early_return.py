"""Reject first, work afterwards: the same sends counted, and next to nothing for all others.

The sends are blocking ones to two peers in a namespace, by a thread that calls itself nginx.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

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

SIZES = [*range(1, 100), 1024, 16_384]
"""Bytes of one send each."""

OTHERS = ["nginxfoo", "node", "ngin", "other"]
"""Names of other programs."""


@pytest.fixture
def connections(bpf_netns: Namespace) -> Iterator[list[Connection]]:
    """Both ends of two connections, to two ports."""
    with ExitStack() as opened:
        ends = []
        for _ in range(2):
            listening = opened.enter_context(bpf_netns.traffic.listen_tcp())
            client = opened.enter_context(bpf_netns.socket())
            client.connect(listening.getsockname()[:2])
            ends.append((client, opened.enter_context(listening.accept()[0])))
        yield ends


@either_hook
def test_both_count_the_same(bpf: Loader, connections: list[Connection], hook: str) -> None:
    one, two = connections
    with attached(bpf, hook) as (before, after):
        for name in OTHERS:
            with named(name):
                send(one, [7])
        assert counted(before) == counted(after) == {}
        with named("nginx"):
            send(one, SIZES)
            send(two, [100] * 3)
    expected = {peer(one): (len(SIZES), sum(SIZES)), peer(two): (3, 300)}
    assert counted(before) == counted(after) == expected
    for obj in (before, after):
        assert 0 < obj.maps["peers"][peer(one)].last < obj.maps["peers"][peer(two)].last


@either_hook
def test_both_count_sends_to_peers_that_find_no_room(
    bpf: Loader, connections: list[Connection], hook: str
) -> None:
    one, two = connections
    with attached(bpf, hook, capacity=1) as (before, after), named("nginx"):
        send(one, SIZES)
        send(two, SIZES)
    for obj in (before, after):
        assert counted(obj) == {peer(one): (len(SIZES), sum(SIZES))}
        assert obj.globals["uncounted"] == len(SIZES)


@either_hook
def test_both_leave_other_processes_alone(
    bpf: Loader, connections: list[Connection], hook: str
) -> None:
    with attached(bpf, hook, tgid=os.getppid()) as (before, after), named("nginx"):
        send(connections[0], SIZES)
    assert counted(before) == counted(after) == {}


def test_a_small_pid_is_no_system_process_and_a_letter_is_no_name(bpf: Loader) -> None:
    shortcuts = bpf.load("shortcuts.bpf.c")
    with named("node"):
        shortcuts.programs["on_run"].test_run()
    assert shortcuts.globals["by_letter"] == 1  # and is not nginx
    # The same test of the same user: how many processes there were before it decides.
    assert shortcuts.globals["by_pid"] == (os.getpid() >= 1000)


@either_hook
def test_both_do_the_same_for_every_name_process_and_size_tried(
    bpf: Loader, connections: list[Connection], bpf_equivalent: CheckEquivalence, hook: str
) -> None:
    def sends(data: bytes) -> None:
        send(connections[data[0] & 1], [1 + data[1]])

    result = bpf_equivalent(*load(bpf, hook), stimulus=sends, count=1000)
    for side in (result.before, result.after):
        assert side.reach.blocks >= side.reach.all_blocks - 1  # there is room for every peer
    assert result.after.insns < result.before.insns


@pytest.mark.bpf_claim("returning early takes no more to verify", row=5)
def test_returning_early_takes_no_more_to_verify(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    before, after = (obj.programs["on_call"] for obj in load(bpf, "on_call"))
    assert after.prog_size_jited <= 1.25 * before.prog_size_jited
    old, new = before.verified_insns, after.verified_insns
    bpf_claim(new <= 1.1 * old, before=old, after=new, unit="instructions verified")


@pytest.mark.bpf_requires(attach="kprobe", exact=True)
@pytest.mark.bpf_claim("returning early spares those who are rejected the costly part", row=5)
def test_who_is_rejected_costs_a_fraction(
    bpf: Loader,
    bpf_measure: Measure,
    bpf_claim: ClaimCheck,
    connections: list[Connection],
) -> None:
    def costs(name: str, tgid: int) -> tuple[float, float]:
        found = []
        for obj in load(bpf, "on_call", tgid=tgid):
            program = obj.programs["on_call"]
            with program.attach(), named(name):
                run = bpf_measure(program, lambda: send(connections[0], [64] * 50), batches=11)
            found.append(run.per_run - (run.empty or 0))
        return found[0], found[1]

    by_process, by_name = costs("nginx", os.getppid()), costs("nginxfoo", os.getpid())
    accepted = costs("nginx", os.getpid())
    bpf_claim(
        by_process[1] <= 0.3 * by_process[0]
        and by_name[1] <= 0.7 * by_name[0]
        and accepted[1] <= 1.05 * accepted[0],
        "rejected by its name {:.0f} → {:.0f}, ".format(*by_name)
        + "accepted {:.0f} → {:.0f}".format(*accepted),
        before=by_process[0],
        after=by_process[1],
        unit="instructions for a send of another process",
    )


def load(bpf: Loader, hook: str, *, capacity: int = 10_240, tgid: int = 0) -> tuple[Object, Object]:
    """Load what was before and what came after, with one of their programs."""
    options: dict[str, Any] = {
        "programs": [hook],
        "globals": {"tgid": tgid or os.getpid()},
        "max_entries": {"peers": capacity},
    }
    return bpf.load("before.bpf.c", **options), bpf.load("after.bpf.c", **options)


@contextmanager
def attached(bpf: Loader, hook: str, **options: int) -> Iterator[tuple[Object, Object]]:
    """Load both, and have them watch for a while."""
    before, after = load(bpf, hook, **options)
    with before.programs[hook].attach(), after.programs[hook].attach():
        yield before, after


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


def send(connection: Connection, sizes: Sequence[int]) -> None:
    """Send so many bytes, one call each, and take them out at the other end."""
    client, server = connection
    for size in sizes:
        assert client.send(bytes(size)) == size
        assert len(server.recv(size, socket.MSG_WAITALL)) == size


def counted(obj: Object) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the sends and the bytes to each peer."""
    return {tuple(to): (sends.count, sends.bytes) for to, sends in obj.maps["peers"].items()}


def peer(connection: Connection) -> tuple[int, int]:
    """Return address and port of the other end as the kernel has them, big-endian."""
    address, port = connection[0].getpeername()
    return int.from_bytes(socket.inet_aton(address), sys.byteorder), socket.htons(port)
