"""What programs filter is in the value returned: XDP on the receiver, a cgroup's on the sender."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cgroup import Cgroup
from pytest_bpf.errors import StimulusError, UnavailableError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.ethtool import gro
from pytest_bpf.netns import pair
from pytest_bpf.traffic import tcp
from pytest_bpf.traffic.ends import TcpEnd
from pytest_bpf.traffic.flood import explain
from pytest_bpf.traffic.packets import udp_frame
from pytest_bpf.traffic.sockets import open_sender

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.netns.namespace import Namespace

CGROUP_SKB, XDP = 8, 6
INET_INGRESS, INET_EGRESS, XDP_LINK = 0, 1, 37
XDP_DROP, XDP_PASS = 1, 2

Instruction = tuple[int, int, int, int]
"""Opcode, registers (source << 4 | destination), offset, immediate."""

EXIT: Instruction = (0x95, 0, 0, 0)


def returning(value: int) -> list[Instruction]:
    return [(0xB7, 0, 0, value), EXIT]


DROP_ONE_IN_FOUR: list[Instruction] = [
    (0x85, 0, 0, 7),  # r0 = bpf_get_prandom_u32()
    (0x57, 0, 0, 3),  # r0 &= 3
    (0x15, 0, 2, 0),  # if r0 == 0 goto drop
    (0xB7, 0, 0, XDP_PASS),
    EXIT,
    (0xB7, 0, 0, XDP_DROP),
    EXIT,
]


@contextmanager
def attached(kind: int, hook: int, target: int, program: list[Instruction]) -> Iterator[None]:
    """Load a program and keep it attached to ``target`` by a link."""
    code = b"".join(struct.pack("<BBhi", *instruction) for instruction in program)
    loaded = libbpf.call("bpf_prog_load", kind, b"test", b"GPL", code, len(program), None)
    try:
        link = libbpf.call("bpf_link_create", loaded, target, hook, None)
        try:
            yield
        finally:
            os.close(link)
    finally:
        os.close(loaded)


@contextmanager
def xdp(place: Namespace, program: list[Instruction]) -> Iterator[None]:
    attachment = attached(XDP, XDP_LINK, place.iface.ifindex, program)
    place.run(attachment.__enter__)
    try:
        yield
    finally:
        attachment.__exit__(None, None, None)


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as topology:
        left, right = topology
        yield left, right


def test_what_xdp_drops_is_lost(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    frame = udp_frame(left.iface, right.iface)
    with xdp(right, returning(XDP_DROP)):
        udp = left.traffic.udp(to=right, port=53, count=1000)
        assert (udp.sent, udp.received, udp.lost, udp.errors) == (1000, 0, 1000, {})
        assert (udp.bytes, udp.received_bytes) == (64_000, 0)
        tcp = left.traffic.tcp(to=right, count=10, connections=2, timeout=0.2)
        assert (tcp.sent, tcp.received, tcp.lost) == (10, 0, 10)
        assert (tcp.connections, tcp.bytes, tcp.errors) == (0, 0, {"ETIMEDOUT": 2})
        ping = left.traffic.ping(to=right, count=10)
        assert (ping.sent, ping.received, ping.rtts) == (10, 0, ())
        assert left.traffic.frames(frame, count=100, to=right).received == 0
        assert left.traffic.flood(frame, count=100_000, to=right).received == 0
    assert left.traffic.udp(to=right, port=53, count=10).lost == 0


def test_some_loss_is_counted_exactly(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    frame = udp_frame(left.iface, right.iface)
    with xdp(right, DROP_ONE_IN_FOUR):
        for sent in (
            left.traffic.udp(to=right, count=8000),
            left.traffic.frames(frame, count=8000, to=right),
            left.traffic.flood(frame, count=8000, to=right),
        ):
            assert sent.received + sent.lost == sent.sent == 8000
            assert 1700 < sent.lost < 2300
        ping = left.traffic.ping(to=right, count=200)
        assert 0 < ping.received < 200
        assert len(ping.rtts) == ping.received
        tcp = left.traffic.tcp(to=right, size=100_000, count=20)  # TCP repeats what is lost
        assert (tcp.received, tcp.lost) == (20, 0)


def test_tcp_that_stalls_is_lost_from_there(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    only_small = [
        (0x61, 0x12, 0, 0),  # r2 = ctx->data
        (0x61, 0x13, 4, 0),  # r3 = ctx->data_end
        (0x1F, 0x23, 0, 0),  # r3 -= r2
        (0x25, 3, 2, 200),  # if r3 > 200 goto drop
        (0xB7, 0, 0, XDP_PASS),
        EXIT,
        (0xB7, 0, 0, XDP_DROP),
        EXIT,
    ]
    with xdp(right, only_small):
        sent = left.traffic.tcp(to=right, size=1000, count=5, timeout=0.3)
    assert (sent.connections, sent.received, sent.lost) == (1, 0, 5)
    assert sent.errors == {"ETIMEDOUT": 1}


def test_a_refused_connection_is_a_finding(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with closing(TcpEnd(right.traffic.listen_tcp())) as end:
        with right.traffic.listen_tcp() as gone:
            end.port = gone.getsockname()[1]
        with open_sender(left, socket.SOCK_STREAM) as sender:
            sent = tcp.exchange([sender], end, b"x", 3, 1.0)
    assert (sent.sent, sent.received, sent.connections) == (3, 0, 0)
    assert sent.errors == {"ECONNREFUSED": 1}


def test_flood_reaches_xdp_without_gro_and_the_stack_with_it(
    ends: tuple[Namespace, Namespace],
) -> None:
    left, right = ends
    frame = udp_frame(left.iface, right.iface)
    name = right.iface.name
    with pytest.raises(StimulusError, match=r"left: veth0 transmitted \d of 1000 frames; its peer"):
        left.traffic.flood(frame, count=1000)
    with xdp(right, returning(XDP_PASS)):
        assert left.traffic.flood(frame, count=100_000).sent == 100_000
    sent = left.traffic.flood(frame, count=100_000, to=right)
    assert (sent.sent, sent.received, sent.errors) == (100_000, 100_000, {})
    with right.socket() as control:
        assert gro(control, name) is False  # as before
        gro(control, name, turn_on=True)
        assert left.traffic.flood(frame, count=1000, to=right).received == 1000
        assert gro(control, name) is True
    assert left.traffic.flood(frame, count=1000).sent == 1000


def test_a_cgroup_refuses_its_sender_only(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with Cgroup() as inside, attached(CGROUP_SKB, INET_EGRESS, inside.fileno(), returning(0)):
        udp = left.traffic.udp(to=right, count=300, cgroup=inside)
        assert (udp.sent, udp.received, udp.bytes) == (300, 0, 0)
        assert udp.errors == {"EPERM": 300}
        ping = left.traffic.ping(to=right, count=3, cgroup=inside)
        assert (ping.received, ping.errors) == (0, {"EPERM": 3})
        tcp = left.traffic.tcp(to=right, cgroup=inside, timeout=0.2)
        assert (tcp.received, tcp.connections) == (0, 0)
        assert left.traffic.udp(to=right, count=300).received == 300
        assert left.traffic.tcp(to=right).received == 1


def test_a_cgroup_refuses_its_receiver_only(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with Cgroup() as inside, attached(CGROUP_SKB, INET_INGRESS, inside.fileno(), returning(0)):
        assert left.traffic.udp(to=right, count=300, to_cgroup=inside).received == 0
        assert left.traffic.tcp(to=right, to_cgroup=inside, timeout=0.2).received == 0
        assert left.traffic.udp(to=right, count=300, cgroup=inside).received == 300
        with right.traffic.sink("udp", cgroup=inside) as sink:
            left.traffic.frames(udp_frame(left.iface, right.iface, dport=sink.port))
        assert sink.received == 0


def test_the_callers_cgroup_is_as_before(ends: tuple[Namespace, Namespace]) -> None:
    left, _ = ends
    before = Path("/proc/self/cgroup").read_text("ascii")
    with Cgroup() as inside:
        left.traffic.tcp(connections=5, cgroup=inside, to_cgroup=inside)
        assert Path("/proc/self/cgroup").read_text("ascii") == before


def test_flood_of_frames_too_large_is_one_sentence(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with pytest.raises(StimulusError, match=r"^the frame has 5000 bytes, but the mtu of veth0 "):
        left.traffic.flood(bytes(5000), count=10, to=right)


def test_flood_without_privilege_is_unavailable() -> None:
    error = explain(PermissionError(1, "Operation not permitted"), 60, 1)
    assert isinstance(error, UnavailableError)
    assert "CAP_BPF" in str(error)
