"""One look-up instead of two: the same numbers for less.

The sends are blocking ones on a real connection between two namespaces, so a test knows every call
and every byte. Both programs watch the same sends at the same time.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from pytest_bpf import Loader, Namespace, Object, Topology
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.costs.run import Measure
    from pytest_bpf.plugin.fuzzing import CheckEquivalence

kprobe = pytest.param("on_call", marks=pytest.mark.bpf_requires(attach="kprobe"))
tracepoint = pytest.param(
    "on_return",
    marks=pytest.mark.bpf_requires(attach="tp_btf", btf_type="btf_trace_sock_send_length"),
)
either_hook = pytest.mark.parametrize("hook", [kprobe, tracepoint])

SIZES = [*range(1, 200), 1024, 65_536]
"""Bytes of one send each."""

one_is_cheaper = pytest.mark.bpf_claim(
    "one look-up, of a struct, is cheaper than a look-up in each of two maps", row=1
)

CHILD = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as client:
    for _ in range(7):
        client.send(bytes(100))
"""


@either_hook
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_both_count_every_call_and_every_byte(
    bpf: Loader, bpf_netns_pair: Topology, hook: str, ipv6: bool
) -> None:
    before, after = attach(bpf, hook)
    with connection(*bpf_netns_pair, ipv6=ipv6) as client:
        send(client, SIZES)
    assert sent_by(before, os.getpid()) == (len(SIZES), sum(SIZES))
    assert sent_by(after, os.getpid()) == (len(SIZES), sum(SIZES))


@either_hook
def test_threads_of_a_process_add_up(bpf: Loader, bpf_netns_pair: Topology, hook: str) -> None:
    before, after = attach(bpf, hook)
    with (
        connection(*bpf_netns_pair) as one,
        connection(*bpf_netns_pair) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        list(pool.map(send, [one, two], [SIZES, SIZES]))
    expected = (2 * len(SIZES), 2 * sum(SIZES))
    assert sent_by(before, os.getpid()) == sent_by(after, os.getpid()) == expected


@either_hook
def test_each_process_has_its_own(bpf: Loader, bpf_netns_pair: Topology, hook: str) -> None:
    left, right = bpf_netns_pair
    before, after = attach(bpf, hook)
    with right.traffic.sink("tcp") as end:
        child = left.popen([sys.executable, "-I", "-c", CHILD, end.address, str(end.port)])
        assert child.wait() == 0
    for obj in (before, after):
        assert sent_by(obj, child.pid) == (7, 700)
        assert sent_by(obj, os.getpid()) == (0, 0)


@either_hook
def test_processes_that_find_no_room_are_counted_together(
    bpf: Loader, bpf_netns_pair: Topology, hook: str
) -> None:
    before, after = attach(bpf, hook, capacity=1)
    before.maps["counts"][0] = before.maps["sizes"][0] = 0
    after.maps["combined_stats"][0] = (0, 0)  # that is all the room there is
    with connection(*bpf_netns_pair) as client:
        send(client, SIZES)
    for obj in (before, after):
        assert sent_by(obj, os.getpid()) == (0, 0)
        assert obj.globals["uncounted"] >= len(SIZES)  # other processes send too


@either_hook
def test_bytes_are_requested_ones_at_entry_and_sent_ones_on_return(
    bpf: Loader, bpf_netns_pair: Topology, hook: str
) -> None:
    left, right = bpf_netns_pair
    _, after = attach(bpf, hook)
    with right.traffic.listen_tcp() as listening, left.socket() as client:
        client.connect(listening.getsockname()[:2])
        client.setblocking(False)
        requested = 64 << 20  # bytes, that nobody reads: the buffers take but a part
        sent = client.send(bytes(requested))
    assert 0 < sent < requested
    expected = {"on_call": requested, "on_return": sent}
    assert sent_by(after, os.getpid()) == (1, expected[hook])


@either_hook
def test_one_struct_has_what_two_maps_have_for_every_process_and_size_tried(
    bpf: Loader, bpf_netns_pair: Topology, bpf_equivalent: CheckEquivalence, hook: str
) -> None:
    def of_two(obj: Object) -> dict[int, tuple[int, int]]:
        sizes = obj.maps["sizes"]
        return {pid: (count, sizes[pid]) for pid, count in obj.maps["counts"].items()}

    def of_one(obj: Object) -> dict[int, tuple[int, int]]:
        return {pid: tuple(stats) for pid, stats in obj.maps["combined_stats"].items()}

    with connection(*bpf_netns_pair) as client:
        result = bpf_equivalent(
            *load(bpf, hook, capacity=64),
            stimulus=lambda data: send(client, [1 + data[0]]),
            states=(of_two, of_one),
            count=1000,
        )
    assert result.after.reach.blocks == result.after.reach.all_blocks
    assert result.after.insns < result.before.insns


@either_hook
@one_is_cheaper
def test_one_look_up_is_less_program(bpf: Loader, bpf_claim: ClaimCheck, hook: str) -> None:
    before, after = (obj.programs[hook] for obj in load(bpf, hook))
    assert after.prog_size_jited <= 0.8 * before.prog_size_jited
    old, new = before.verified_insns, after.verified_insns
    bpf_claim(new <= 0.75 * old, before=old, after=new, unit="insns verified")


@either_hook
@one_is_cheaper
@pytest.mark.bpf_requires(exact=True)
def test_one_look_up_is_fewer_instructions(
    bpf: Loader, bpf_netns_pair: Topology, bpf_measure: Measure, bpf_claim: ClaimCheck, hook: str
) -> None:
    objects = attach(bpf, hook)
    with connection(*bpf_netns_pair) as client:
        before, after = (
            bpf_measure(obj.programs[hook], partial(send, client, [100] * 100), batches=10)
            for obj in objects
        )
    unit = "instructions a send"
    bpf_claim(after.per_run <= 0.75 * before.per_run, before=before, after=after, unit=unit)


def load(bpf: Loader, hook: str, *, capacity: int = 10_240) -> tuple[Object, Object]:
    """Load what was before and what came after, with one of their programs."""
    before, after = dict.fromkeys(["counts", "sizes"], capacity), {"combined_stats": capacity}
    return (
        bpf.load("before.bpf.c", programs=[hook], max_entries=before),
        bpf.load("after.bpf.c", programs=[hook], max_entries=after),
    )


def attach(bpf: Loader, hook: str, *, capacity: int = 10_240) -> tuple[Object, Object]:
    """Load both, and have them watch."""
    objects = load(bpf, hook, capacity=capacity)
    for obj in objects:
        obj.programs[hook].attach()
    return objects


@contextmanager
def connection(left: Namespace, right: Namespace, *, ipv6: bool = False) -> Iterator[socket.socket]:
    """Connect to a thread that reads and answers nothing."""
    with right.traffic.sink("tcp", ipv6=ipv6) as end:
        family = end.socket.family
        with left.socket(family) as client:
            client.connect((end.address, end.port))
            yield client


def send(client: socket.socket, sizes: Sequence[int]) -> None:
    """Send so many bytes, one call each."""
    for size in sizes:
        assert client.send(bytes(size)) == size


def sent_by(obj: Object, pid: int) -> tuple[int, int]:
    """Return the calls and the bytes of a process."""
    if "combined_stats" in obj.maps:
        return tuple(obj.maps["combined_stats"].get(pid, (0, 0)))
    return obj.maps["counts"].get(pid, 0), obj.maps["sizes"].get(pid, 0)
