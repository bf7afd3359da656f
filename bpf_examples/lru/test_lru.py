"""Connections in a map of fixed size: a hash refuses the newest, an LRU hash drops the oldest.

The connections are real ones between two namespaces. A socket knows the cookie that the programs
use as its key, so a test can say exactly which connections are remembered.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import DifferenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf import Loader, Namespace, Object, Topology
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import CheckEquivalence

pytestmark = pytest.mark.bpf_requires(attach="tp_btf", map_type="lru_hash")

both = pytest.mark.parametrize("source", ["before.bpf.c", "after.bpf.c"])


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU: each has a list of its newest entries, which it evicts alone."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    yield
    os.sched_setaffinity(0, usable)


@both
def test_connection_is_followed_from_its_beginning(
    bpf: Loader, bpf_netns_pair: Topology, source: str
) -> None:
    left, right = bpf_netns_pair
    connections = attach(bpf, source, left, capacity=10_000).maps["connections"]
    with right.traffic.echo("tcp") as end, left.socket() as client:
        client.connect((end.address, end.port))
        assert connections[cookie(client)].segments == 0
        client.send(b"x")
        assert client.recv(1) == b"x"
        assert connections[cookie(client)].segments >= 1


@both
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_both_remember_all_while_there_is_room(
    bpf: Loader, bpf_netns_pair: Topology, source: str, ipv6: bool
) -> None:
    left, right = bpf_netns_pair
    obj = attach(bpf, source, left, capacity=10_000)
    assert len(obj.maps["connections"]) == 0
    cookies = connect(left, right, 50, ipv6=ipv6)
    assert set(obj.maps["connections"]) == set(cookies)
    assert obj.globals["refused"] == 0


@both
def test_connection_that_was_refused_is_none(
    bpf: Loader, bpf_netns_pair: Topology, source: str
) -> None:
    left, right = bpf_netns_pair
    obj = attach(bpf, source, left, capacity=10_000)
    with left.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect((str(right.ipv4), 9))
    assert len(obj.maps["connections"]) == 0


@both
def test_connections_of_others_are_not_remembered(
    bpf: Loader, bpf_netns_pair: Topology, source: str
) -> None:
    left, right = bpf_netns_pair
    obj = attach(bpf, source, left, capacity=10_000)
    connect(right, right, 5)
    assert len(obj.maps["connections"]) == 0


@pytest.mark.usefixtures("one_cpu")
@pytest.mark.bpf_claim(
    "a LRU_HASH takes every new connection, and when it is full the oldest goes for it",
    row=9,
    verdict="holds in part",
)
def test_full_hash_refuses_new_connections_and_lru_hash_none(
    bpf: Loader, bpf_netns_pair: Topology, bpf_claim: ClaimCheck
) -> None:
    left, right = bpf_netns_pair
    before, after = (attach(bpf, f"{w}.bpf.c", left, capacity=100) for w in ("before", "after"))
    cookies = connect(left, right, 300)
    assert before.globals["refused"] == 200
    assert set(before.maps["connections"]) == set(cookies[:100])
    assert set(after.maps["connections"]) <= set(cookies)
    larger = bpf.load("after.bpf.c", max_entries={"connections": 1000}).maps["connections"]
    larger.update(dict.fromkeys(range(1000), (0, 0)))
    bpf_claim(
        {
            "takes every new one": cookies[-1] in after.maps["connections"],
            "nothing goes before it is full": len(larger) == 1000,
        },
        f"of 1,000 keys in room for 1,000, {len(larger)} are left",
        before=before.globals["refused"],
        after=after.globals["refused"],
        unit="of 300 connections refused",
    )


def test_full_lru_hash_keeps_nearly_its_capacity(bpf: Loader, bpf_netns_pair: Topology) -> None:
    left, right = bpf_netns_pair
    capacity = 600
    after = attach(bpf, "after.bpf.c", left, capacity=capacity)
    for _ in range(6):
        assert left.traffic.tcp(to=right, connections=250, count=0).connections == 250
    # entries are freed 128 at a time, and each CPU keeps as many at hand
    spare = 128 * ((os.cpu_count() or 1) + 1)
    assert capacity - spare <= len(after.maps["connections"]) <= capacity
    assert after.globals["refused"] == 0


def test_both_are_the_same_until_they_are_full(
    bpf: Loader, bpf_netns_pair: Topology, bpf_equivalent: CheckEquivalence
) -> None:
    left, right = bpf_netns_pair
    with right.traffic.sink("tcp") as end:

        def connects(_: bytes) -> None:
            with left.socket() as client:
                client.connect((end.address, end.port))

        def compare(capacity: int, after: str = "after.bpf.c", **options: Any) -> None:
            objects = [
                bpf.load(
                    source,
                    programs=["remember"],
                    globals={"netns": left.inode},
                    max_entries={"connections": capacity},
                )
                for source in ("before.bpf.c", after)
            ]
            bpf_equivalent(*objects, stimulus=connects, count=100, **options)

        compare(10_000)
        with pytest.raises(DifferenceError, match=r"'refused'|'connections'"):  # on purpose
            compare(16)
        with pytest.raises(DifferenceError, match="states=: before 2, after 1"):
            compare(
                10_000,
                "by_pid.bpf.c",
                states=[lambda obj: len(obj.maps["connections"])] * 2,
                ignore=["refused"],
            )


@pytest.mark.usefixtures("one_cpu")
def test_connection_in_use_is_not_forgotten(bpf: Loader, bpf_netns_pair: Topology) -> None:
    left, right = bpf_netns_pair
    after = attach(bpf, "after.bpf.c", left, capacity=1000)
    connections = after.maps["connections"]
    with right.traffic.echo("tcp") as end, left.socket() as hot, left.socket() as cold:
        hot.connect((end.address, end.port))
        cold.connect((end.address, end.port))
        assert {cookie(hot), cookie(cold)} == set(connections)
        for _ in range(40):
            connect(left, right, 50)
            hot.send(b"x")
            assert hot.recv(1) == b"x"  # the program looks it up when this arrives
            connections.get(cookie(cold))  # a look-up from user space is no use of it
        assert cookie(cold) not in connections
        assert connections[cookie(hot)].segments >= 40


def test_keyed_by_pid_a_process_has_one_connection(bpf: Loader, bpf_netns_pair: Topology) -> None:
    left, right = bpf_netns_pair
    by_pid = bpf.load("by_pid.bpf.c", globals={"netns": left.inode})
    by_pid.attach()
    connect(left, right, 50)
    assert list(by_pid.maps["connections"]) == [os.getpid()]


def attach(bpf: Loader, source: str, namespace: Namespace, *, capacity: int) -> Object:
    """Have the connections of one namespace remembered."""
    max_entries = {"connections": capacity}
    obj = bpf.load(source, globals={"netns": namespace.inode}, max_entries=max_entries)
    obj.attach()
    return obj


def connect(left: Namespace, right: Namespace, count: int, *, ipv6: bool = False) -> list[int]:
    """Open and close so many connections, one after another; return their cookies."""
    cookies = []
    with right.traffic.sink("tcp", ipv6=ipv6) as end:
        for _ in range(count):
            with left.socket(socket.AF_INET6 if ipv6 else socket.AF_INET) as client:
                client.connect((end.address, end.port))
                cookies.append(cookie(client))
    return cookies


def cookie(of: socket.socket) -> int:
    """Return what ``bpf_get_socket_cookie()`` returns for this socket."""
    so_cookie = 57  # asm-generic/socket.h
    return int.from_bytes(of.getsockopt(socket.SOL_SOCKET, so_cookie, 8), "little")
