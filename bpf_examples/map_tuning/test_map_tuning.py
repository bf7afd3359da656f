"""A table of connections in a hash and in an LRU hash: what each needs, forgets, and costs.

The connections are real ones in a namespace, known by the cookies that the programs use as keys.
Costs are of a thousand made-up connections a run, as ratios of medians of runs that took turns.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import DifferenceError
from pytest_bpf.kernel.sys.exact import is_exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_bpf import Loader, Namespace, Object
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import CheckEquivalence

followed = pytest.mark.bpf_requires(attach="tp_btf", map_type="lru_hash")
run_alone = pytest.mark.bpf_requires(program_type="sched_cls", map_type="lru_hash")

CAPACITY = 10_000
RUN = 1024
"""Connections of one run of ``steady`` or ``life_cycle``."""

FRAME = bytes(64)


@followed
def test_open_connections_are_known_and_their_segments_counted(
    bpf: Loader, bpf_netns: Namespace
) -> None:
    objects = load_both(bpf, bpf_netns.inode)
    with (
        attached(*objects),
        bpf_netns.traffic.echo("tcp") as end,
        bpf_netns.socket() as client,
    ):
        client.connect((end.address, end.port))
        of_client = cookie(client)
        assert [obj.maps["connections"][of_client].segments for obj in objects] == [0, 0]
        client.send(b"x")
        assert client.recv(1) == b"x"
        for obj in objects:
            assert obj.maps["connections"][of_client].segments >= 1
            assert obj.maps["connections"][of_client].since > 0


@followed
def test_hash_knows_those_that_are_open_and_lru_those_that_were_too(
    bpf: Loader, bpf_netns: Namespace
) -> None:
    before, after = load_both(bpf, bpf_netns.inode)
    with attached(before, after):
        with opened(bpf_netns, 20) as cookies:
            assert known(before) == known(after) == cookies
        assert known(before) == set()
        assert known(after) == cookies
    assert [obj.globals["refused"] for obj in (before, after)] == [0, 0]


@followed
def test_connections_of_others_are_not_known(bpf: Loader, bpf_netns: Namespace) -> None:
    before, after = load_both(bpf, netns=0)
    with attached(before, after), opened(bpf_netns, 4):
        assert known(before) == known(after) == set()


@followed
def test_hash_fills_with_what_nobody_took_out(bpf: Loader, bpf_netns: Namespace) -> None:
    before, _ = load_both(bpf, bpf_netns.inode, capacity=30)
    with ExitStack() as stack:
        with attached(before):
            forgotten = stack.enter_context(opened(bpf_netns, 20))
        stack.close()  # while nobody watches
        with attached(before), opened(bpf_netns, 16) as cookies:
            assert known(before) >= forgotten
            assert len(known(before) & cookies) == 10
            assert before.globals["refused"] == 6


@followed
def test_both_are_the_same_while_connections_stay_open(
    bpf: Loader, bpf_netns: Namespace, bpf_equivalent: CheckEquivalence
) -> None:
    with ExitStack() as stack, bpf_netns.traffic.sink("tcp") as end:

        def opens(_: bytes) -> socket.socket:
            client = stack.enter_context(bpf_netns.socket())
            client.connect((end.address, end.port))
            return client

        def opens_and_closes(data: bytes) -> None:
            client = opens(data)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            client.close()  # at once

        options: dict[str, Any] = {"program": "on_state", "count": 100}
        bpf_equivalent(*load_both(bpf, bpf_netns.inode), stimulus=opens, **options)
        with pytest.raises(DifferenceError, match=r"map 'connections'.* before nothing, after"):
            bpf_equivalent(  # an LRU hash keeps those that are closed: on purpose
                *load_both(bpf, bpf_netns.inode),
                stimulus=opens_and_closes,
                **options,
            )


@run_alone
def test_segments_are_counted_alike(bpf: Loader, bpf_equivalent: CheckEquivalence) -> None:
    objects = [bpf.load(f"{w}.bpf.c", programs=["steady"]) for w in ("before", "after")]
    for obj in objects:
        obj.maps["connections"].update((key, (0, 0)) for key in range(RUN // 2))
    bpf_equivalent(*objects, count=100)


@followed
@pytest.mark.bpf_claim("an LRU_HASH needs no management", row=15, verdict="holds in part")
def test_lru_refuses_none_and_forgets_some_that_are_open(
    bpf: Loader, bpf_netns: Namespace, bpf_claim: ClaimCheck
) -> None:
    capacity, count = 100, 300
    old, new = load_both(bpf, bpf_netns.inode, capacity=capacity)
    with attached(old, new), opened(bpf_netns, count) as cookies:
        refused = [obj.globals["refused"] for obj in (old, new)]
        kept = known(new)
    assert refused == [count - capacity, 0]
    assert kept <= cookies
    assert len(kept) <= capacity
    bpf_claim(
        {"none is refused": refused[1] == 0, "none that is open is forgotten": kept == cookies},
        f"of {count} open at once, with room for {capacity}: {len(kept)} are known",
        before=refused[0],
        after=refused[1],
        unit="refused",
    )


@run_alone
def test_a_run_uses_a_thousand_connections(bpf: Loader) -> None:
    for source in ("before.bpf.c", "after.bpf.c"):
        obj = bpf.load(source, programs=["steady", "life_cycle"])
        connections = obj.maps["connections"]
        connections.update((key, (0, 0)) for key in range(1, RUN + 1))
        obj.programs["steady"].test_run(FRAME, context={"mark": 1})
        assert {value.segments for value in connections.values()} == {1}
        obj.programs["life_cycle"].test_run(FRAME, context={"mark": RUN + 1})
        assert len(connections) == (RUN if source == "before.bpf.c" else 2 * RUN)


@run_alone
@pytest.mark.bpf_requires(kernel=">=6.2")  # before, memlock is an estimate
@pytest.mark.bpf_claim("the memory of an LRU_HASH is steady", row=15)
def test_memory_is_the_same_empty_and_full(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    memory = {}
    room = {"connections": 2000}
    for source, keys in (("before.bpf.c", 2000), ("after.bpf.c", 6000)):
        obj = bpf.load(source, programs=["steady"], max_entries=room)
        connections = obj.maps["connections"]
        empty = connections.memlock
        connections.update((key, (0, 0)) for key in range(keys))
        memory[source] = empty, connections.memlock
    before, after = memory["before.bpf.c"][1], memory["after.bpf.c"][1]
    assert memory["before.bpf.c"][0] == before  # so is that of a hash
    assert after == pytest.approx(before, rel=0.05)
    bpf_claim(
        memory["after.bpf.c"][0] == after,
        "empty and full alike",
        before=before,
        after=after,
        unit="B",
    )


@run_alone
@pytest.mark.bpf_claim("an LRU_HASH has 30 % less latency", row=15, verdict="refuted")
def test_lru_is_no_quicker(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    before, after = (
        bpf.load(source, programs=["steady", "life_cycle"])
        for source in ("before.bpf.c", "after.bpf.c")
    )
    for obj in (before, after):
        obj.maps["connections"].update((key, (0, 0)) for key in range(1, RUN + 1))
    steady = costs(before, after, "steady", [1] * 21)
    assert [obj.maps["connections"][1].segments for obj in (before, after)] == [21, 21]
    # Each run has connections of its own, ten times as many as there is room for.
    cycle = costs(before, after, "life_cycle", range(RUN + 1, 101 * RUN, RUN))
    assert [obj.globals["refused"] for obj in (before, after)] == [0, 0]
    assert len(before.maps["connections"]) == RUN
    if is_exact():
        assert steady[1] <= 1.25 * steady[0]
        assert cycle[1] <= 1.25 * cycle[0]
    bpf_claim(
        {
            "while a connection is used": steady[1] <= 0.7 * steady[0],
            "over its life": cycle[1] <= 0.7 * cycle[0],
        },
        "a life of a connection {:.0f} → {:.0f}".format(*cycle),
        before=steady[0],
        after=steady[1],
        unit=f"{'instructions' if is_exact() else 'ns'} a segment",
    )


def load_both(bpf: Loader, netns: int, *, capacity: int = CAPACITY) -> tuple[Object, Object]:
    """Load the programs that follow the connections of a namespace."""
    before, after = (
        bpf.load(
            source,
            programs=["on_state", "on_segment"],
            globals={"netns": netns},
            max_entries={"connections": capacity},
        )
        for source in ("before.bpf.c", "after.bpf.c")
    )
    return before, after


@contextmanager
def attached(*objects: Object) -> Iterator[None]:
    """Have the programs watch for a while."""
    with ExitStack() as links:
        for obj in objects:
            for program in obj.programs.values():
                links.enter_context(program.attach())
        yield


@contextmanager
def opened(netns: Namespace, count: int) -> Iterator[set[int]]:
    """Open so many connections, and give the cookies of both ends of each."""
    with ExitStack() as stack:
        listening = stack.enter_context(netns.traffic.listen_tcp())
        cookies = set()
        for _ in range(count // 2):
            client = stack.enter_context(netns.socket())
            client.connect(listening.getsockname()[:2])
            server = stack.enter_context(listening.accept()[0])
            cookies |= {cookie(client), cookie(server)}
        yield cookies


def cookie(of: socket.socket) -> int:
    """Return what ``bpf_get_socket_cookie()`` returns for this socket."""
    so_cookie = 57  # asm-generic/socket.h
    return int.from_bytes(of.getsockopt(socket.SOL_SOCKET, so_cookie, 8), "little")


def known(obj: Object) -> set[int]:
    """Return the cookies of the connections in the map."""
    return set(obj.maps["connections"])


def costs(before: Object, after: Object, program: str, marks: Sequence[int]) -> tuple[float, float]:
    """Return what one connection of a run costs: medians of runs that took turns."""
    runs = [
        [
            obj.programs[program].test_run(FRAME, context={"mark": mark}).duration_ns / RUN
            for obj in (before, after)
        ]
        for mark in marks
    ]
    half = len(runs) // 2  # by then a map is as full as it will be
    old, new = (median(times[half:]) for times in zip(*runs, strict=True))
    return old, new
