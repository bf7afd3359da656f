"""Traffic waits for what a slow path delivers late, and no longer."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import UnavailableError
from pytest_bpf.netns.layout import End, Layout
from pytest_bpf.netns.netem import impair
from pytest_bpf.netns.topology import Topology, pair
from pytest_bpf.traffic.pace import SETTLE, Pace, Silence
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.netns.namespace import Namespace

DELAY = 0.03
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3


@contextmanager
def slow_cable(delay: float = DELAY) -> Iterator[tuple[Namespace, Namespace]]:
    """Join two namespaces by a third whose thread passes frames on after ``delay`` seconds."""
    layout = Layout(
        cables=(
            (End("left", "veth0", "192.0.2.1/24", "2001:db8::1/64"), End("middle", "a")),
            (End("middle", "b"), End("right", "veth0", "192.0.2.2/24", "2001:db8::2/64")),
        ),
        quiet=False,
    )
    with ExitStack() as stack:
        left, middle, right = stack.enter_context(Topology(layout))
        a, b = (stack.enter_context(tap(middle, name)) for name in ("a", "b"))
        wake, woken = socket.socketpair()
        stack.enter_context(wake)
        stack.enter_context(woken)
        thread = threading.Thread(target=pass_on, args=({a: b, b: a}, woken, delay))
        thread.start()
        stack.callback(thread.join)
        stack.callback(wake.send, b"x")
        left.delay = right.delay = delay
        yield left, right


def tap(namespace: Namespace, ifname: str) -> socket.socket:
    made = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)  # checksums that are still to be computed
    made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    made.bind((ifname, ETH_P_ALL))
    return made


def pass_on(to: dict[socket.socket, socket.socket], woken: socket.socket, delay: float) -> None:
    under_way: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        rest = under_way[0][0] - time.monotonic() if under_way else None
        ready, _, _ = select.select([woken, *to], [], [], rest and max(rest, 0))
        if woken in ready:
            return
        for source in ready:
            under_way.append((time.monotonic() + delay, to[source], source.recv(1 << 17)))
        while under_way and under_way[0][0] <= time.monotonic():
            _, target, frame = under_way.popleft()
            target.send(frame)


def test_what_comes_late_is_counted() -> None:
    with slow_cable() as (left, right):
        pinged = left.traffic.ping(to=right, count=3)
        assert pinged.received == 3
        assert min(pinged.rtts) >= 2 * DELAY
        for ipv6 in (False, True):
            assert left.traffic.udp(to=right, count=300, ipv6=ipv6).received == 300
            assert left.traffic.udp(to=right, count=300, ipv6=ipv6, echo=True).received == 300
            assert left.traffic.tcp(to=right, count=30, ipv6=ipv6, echo=True).received == 30
        frame = udp_frame(left.iface, right.iface)
        assert left.traffic.frames(frame, count=300, to=right).received == 300


def test_a_time_out_of_ones_own_can_be_too_short() -> None:
    with slow_cable(60) as (left, right):  # nothing of it comes while the test runs
        assert left.traffic.udp(to=right, count=10, timeout=DELAY).received == 0


def test_netem_is_waited_for() -> None:
    with pair() as (left, right):
        try:
            for end in (left, right):
                impair(end.iface, delay=DELAY)
        except UnavailableError as error:
            pytest.skip(str(error))
        assert left.traffic.udp(to=right, count=500, echo=True).received == 500
        assert min(left.traffic.ping(to=right, count=2).rtts) >= 2 * DELAY


class Path:
    """Arrivals by a script: what each look finds, in all."""

    def __init__(self, *totals: int) -> None:
        self.totals = deque(totals)
        self.last = 0
        self.waits: list[float] = []

    def arrived(self) -> int:
        if self.totals:
            self.last = self.totals.popleft()
        return self.last

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        if not self.totals:
            time.sleep(seconds)


def test_nothing_is_waited_for_when_all_is_there() -> None:
    path = Path(10, 20)
    pace = Pace(path.arrived, path.wait, Silence(between=60, final=60))
    pace.burst(10)
    pace.burst(20)
    pace.finish(20)
    assert path.waits == []


def test_silence_begins_anew_with_every_arrival() -> None:
    path = Path(*range(8))
    pace = Pace(path.arrived, path.wait, Silence(between=60, final=60))
    pace.burst(7)
    assert len(path.waits) == 7
    assert all(59 < wait <= 60 for wait in path.waits)


def test_a_lost_burst_is_not_waited_for_twice() -> None:
    path = Path(0)
    pace = Pace(path.arrived, path.wait, Silence(between=0.001, final=60))
    pace.burst(10)
    waited = len(path.waits)
    path.totals.extend([10])  # the next ten
    pace.burst(20)
    assert len(path.waits) == waited


def test_the_end_is_waited_for_with_the_final_silence() -> None:
    path = Path(0)
    pace = Pace(path.arrived, path.wait, Silence(between=SETTLE / 100, final=SETTLE))
    pace.burst(1)
    path.waits.clear()
    pace.finish(1)
    assert path.waits[0] > SETTLE / 2
