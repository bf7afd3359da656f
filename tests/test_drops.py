from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.compile import compile_source
from pytest_bpf.drops import DropCounts, Drops, InterfaceDrops, QdiscDrops, ReasonCounter
from pytest_bpf.drops import reasons as reasons_module
from pytest_bpf.drops.counters import netns_cookie
from pytest_bpf.drops.reasons import SOURCE
from pytest_bpf.errors import BpfError, UnavailableError, UnknownNameError
from pytest_bpf.kernel.btf import vmlinux
from pytest_bpf.kernel.btf.drop_reasons import reason_names
from pytest_bpf.kernel.sys.descriptors import open_objects
from pytest_bpf.netns import Namespace, pair
from pytest_bpf.objects.loading.open_object import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Topology
    from pytest_bpf.netns.places import Places
    from pytest_bpf.objects import Object

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

PROGRAMS = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int aborted(struct xdp_md *ctx) { return XDP_ABORTED; }
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tc") int shot(struct __sk_buff *ctx) { return 2; }
char LICENSE[] SEC("license") = "GPL";
"""

FRAME = b"\2bpf\0\2" + b"\2bpf\0\1" + b"\x88\xb5" + bytes(50)
"""To right's veth0 from left's, of a local experimental EtherType."""

REMOTE = "203.0.113.9"


@pytest.fixture
def programs(bpf: Loader) -> Object:
    return bpf.load(PROGRAMS, name="dropping")


@pytest.fixture
def ends(bpf_netns_pair: Topology) -> tuple[Namespace, Namespace]:
    left, right = bpf_netns_pair
    return left, right


def send(source: Namespace, address: Any, port: int, count: int, payload: bytes = b"x") -> None:
    """Send datagrams to where nobody answers, ICMP errors notwithstanding."""
    family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
    with source.socket(family, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(payload, (str(address), port))


def deaf(namespace: Namespace, family: int = socket.AF_INET) -> socket.socket:
    """Return a socket with room for a few datagrams that nobody reads."""
    made = namespace.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    made.bind((str(namespace.ipv4 if family == socket.AF_INET else namespace.ipv6), 0))
    return made


def queued(reader: socket.socket) -> int:
    reader.setblocking(False)
    count = 0
    try:
        while reader.recv(4096):
            count += 1
    except BlockingIOError:
        return count
    raise AssertionError("an empty datagram")


def slow_down(namespace: Namespace, index: int) -> None:
    """Let an interface send 1,000 bytes a second, and hold 2,000 back (tc-tbf(8))."""
    from pyroute2 import IPRoute

    def add() -> None:
        with IPRoute() as route:
            route.tc("add", "tbf", index, 0x10000, rate=1000, burst=2000, limit=2000)

    namespace.run(add)


# -- XDP and tc --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("program", ["drop", "aborted"])
def test_xdp_drops_are_exact(
    mode: str, program: str, programs: Object, ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    left, right = ends
    programs.programs[program].attach(right.iface, mode=mode)
    assert bpf_drops.total == 0
    sent = left.traffic.udp(to=right, port=53, count=1000)
    assert sent.received == 0
    assert bpf_drops.xdp == 1000
    assert bpf_drops.reasons == {"XDP": 1000}
    assert bpf_drops.total == 1000
    assert bpf_drops[right].xdp == 1000
    assert bpf_drops["left"].xdp == 0
    native = 1000 if mode == "native" else 0
    assert bpf_drops.drivers["right", "veth0", "rx_queue_0_xdp_drops"] == native
    assert bpf_drops.tc == 0


def test_frames_that_never_were_packets_count_as_xdp(
    programs: Object, ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    left, right = ends
    programs.programs["drop"].attach(right.iface)
    sent = left.traffic.flood(FRAME, count=1000)
    taken = sent.sent - sum(sent.errors.values())
    assert taken > 0
    assert bpf_drops.xdp == taken
    assert bpf_drops.reasons == {"XDP": taken}
    assert bpf_drops.functions == {}


def test_passing_programs_drop_nothing(
    programs: Object, ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    left, right = ends
    for mode in ("native", "generic"):
        link = programs.programs["pass"].attach(right.iface, mode=mode)
        assert left.traffic.udp(to=right, count=100).received == 100
        link.detach()
    assert bpf_drops.reasons == {}
    assert bpf_drops.xdp == 0


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_tc_drops_are_exact_and_outlive_their_qdisc(
    direction: str, programs: Object, ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    left, right = ends
    where = right if direction == "ingress" else left
    link = programs.programs["shot"].attach(where.iface, direction=direction)
    left.traffic.udp(to=right, count=1000)
    for _ in range(2):
        assert bpf_drops.tc == 1000
        assert bpf_drops.total == 1000
        assert bpf_drops.reasons == {f"TC_{direction.upper()}": 1000}
        assert bpf_drops[where].tc == 1000
        assert bpf_drops.xdp == 0
        clsact = bpf_drops.qdiscs.get((where.name, "veth0", "clsact"))
        assert clsact == (QdiscDrops(drops=1000) if link.attached else None)
        link.detach()


# -- the stack ---------------------------------------------------------------------------------


def test_what_arrives_is_not_dropped(ends: tuple[Namespace, Namespace], bpf_drops: Drops) -> None:
    left, right = ends
    assert left.traffic.udp(to=right, count=100).received == 100
    assert left.traffic.tcp(to=right, count=100).received == 100
    assert left.traffic.ping(to=right, count=10).received == 10
    assert left.traffic.ping(to=right, count=10, ipv6=True).received == 10
    assert left.traffic.frames(FRAME, to=right, count=100).received == 100
    left.traffic.flood(FRAME, to=right, count=1000)
    assert bpf_drops.reasons == {}
    assert bpf_drops.total == 0
    assert set(bpf_drops.interfaces.values()) == {InterfaceDrops()}


@pytest.mark.parametrize("version", [4, 6])
def test_a_closed_port_is_no_socket(
    version: int, ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    left, right = ends
    send(left, right.ipv4 if version == 4 else right.ipv6, 9, 100)
    assert bpf_drops.reasons == {"NO_SOCKET": 100}
    assert bpf_drops.total == 100
    assert bpf_drops[right].reasons == {"NO_SOCKET": 100}
    assert sum(bpf_drops.functions.values()) == 100


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_full_socket_is_rcvbuff(
    family: int, ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    left, right = ends
    with deaf(right, family) as reader:
        address, port = reader.getsockname()[:2]
        send(left, address, port, 200, bytes(100))
        kept = queued(reader)
    assert 0 < kept < 200
    assert bpf_drops[right].reasons == {"SOCKET_RCVBUFF": 200 - kept}
    assert bpf_drops.total == 200 - kept


def test_a_full_socket_is_known_without_the_tracepoints_socket(
    ends: tuple[Namespace, Namespace],
) -> None:
    left, right = ends
    names = reason_names()
    built = compile_source(SOURCE).object
    open_object = open_file(built, trusted=True)
    open_object.globals["has_rx_sk"] = False
    open_object.globals["has_place"] = vmlinux().tracepoint_arguments("consume_skb") > 1
    with open_object, open_object.load() as counting:
        counting.globals["counting"] = True
        counting.attach()
        with deaf(right) as reader:
            address, port = reader.getsockname()
            send(left, address, port, 200, bytes(100))
            kept = queued(reader)
        cookie = right.run(netns_cookie)
        found = [
            (names[drop.reason], seen.packets)
            for drop, seen in counting.maps["drops"].items()
            if drop.namespace == cookie
        ]
    assert found == [("SOCKET_RCVBUFF", 200 - kept)]


def test_a_full_qdisc_counts_drops_and_overlimits(
    ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    left, right = ends
    slow_down(left, left.iface.ifindex)
    sent = left.traffic.udp(to=right, count=100, size=500)
    shaped = bpf_drops.qdiscs["left", "veth0", "tbf"]
    assert 80 < shaped.drops < sent.lost
    assert shaped.overlimits >= shaped.drops
    # one that was shaped for long may come when its receiver is gone
    found = {name: count for name, count in bpf_drops.reasons.items() if name != "NO_SOCKET"}
    assert [name[:5] for name in found] == ["QDISC"]
    assert list(found.values()) == [shaped.drops]
    assert bpf_drops.tc == 0


def test_a_router_without_a_route_drops(bpf_places: Places, bpf_drops: Drops) -> None:
    routed = bpf_places.router()
    send(routed["left"], REMOTE, 9, 10)
    assert bpf_drops["router"].total == 10
    assert bpf_drops["left"].total == bpf_drops["right"].total == 0
    assert bpf_drops.functions == {"ip_error": 10}
    if "IP_INNOROUTES" in reason_names().values():
        assert bpf_drops.reasons == {"IP_INNOROUTES": 10}


# -- whose, and when ---------------------------------------------------------------------------


def test_foreign_namespaces_do_not_count(
    ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    with pair() as (foreign, other):
        send(foreign, other.ipv4, 9, 50)
        send(ends[0], ends[1].ipv4, 9, 3)
        with Drops([foreign, other]) as theirs:
            send(foreign, other.ipv4, 9, 5)
            assert theirs.reasons == {"NO_SOCKET": 5}
    assert bpf_drops.reasons == {"NO_SOCKET": 3}
    assert bpf_drops.total == 3


@pytest.mark.parametrize("time", [1, 2])
def test_every_test_begins_at_zero(
    time: int, programs: Object, ends: tuple[Namespace, Namespace], bpf_drops: Drops
) -> None:
    left, right = ends
    assert bpf_drops.snapshot().reasons == {}
    send(left, right.ipv4, 9, time)
    programs.programs["drop"].attach(right.iface)
    send(left, right.ipv4, 9, 10 * time)
    assert bpf_drops.reasons == {"XDP": 10 * time, "NO_SOCKET": time}


def test_what_came_before_does_not_count(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    slow_down(left, left.iface.ifindex)
    left.traffic.udp(to=right, count=50, size=500)
    with Drops([left, right]) as drops:
        before = drops.qdiscs["left", "veth0", "tbf"]
        assert before.drops == 0
        assert before.overlimits < 40, "a few packets still wait for their turn"
        late = drops.reasons.get("NO_SOCKET", 0)  # they find that nobody waits for them any more
        assert drops.total == late < 40


def test_namespaces_made_later_count_from_their_beginning(
    bpf_places: Places, bpf_drops: Drops
) -> None:
    assert bpf_drops.total == 0
    for number in ("", "#2"):
        left, right = bpf_places.pair()
        send(left, right.ipv4, 9, 4)
        assert bpf_drops[right].total == 4
        assert bpf_drops[f"right{number}"].total == 4
    assert bpf_drops.reasons == {"NO_SOCKET": 8}
    assert ("left#2", "veth0") in bpf_drops.interfaces


def test_closed_namespaces_keep_their_packets(bpf_drops: Drops, bpf_places: Places) -> None:
    left, right = bpf_places.pair()
    send(left, right.ipv4, 9, 4)
    assert bpf_drops.total == 4
    left.close()
    right.close()
    assert bpf_drops[right].reasons == {"NO_SOCKET": 4}
    assert bpf_drops.interfaces == {}


def test_a_span_counts_a_part(ends: tuple[Namespace, Namespace], bpf_drops: Drops) -> None:
    left, right = ends
    send(left, right.ipv4, 9, 1)
    with bpf_drops.span() as span:
        send(left, right.ipv4, 9, 10)
        assert span.total == 10
        send(left, right.ipv4, 9, 10)
    send(left, right.ipv4, 9, 100)
    assert span.reasons == {"NO_SOCKET": 20}
    assert span["right"].total == 20
    assert bpf_drops.total == 121
    before = bpf_drops.snapshot()
    send(left, right.ipv4, 9, 5)
    assert (bpf_drops.snapshot() - before).total == 5
    assert before.total == 121


def test_drops_inside_of_drops_count_once(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with ReasonCounter() as counter, Drops([left, right], counter) as outer:
        send(left, right.ipv4, 9, 1)
        with Drops([left, right], counter) as inner:
            send(left, right.ipv4, 9, 10)
        send(left, right.ipv4, 9, 100)
        assert inner.total == 10
        assert outer.total == 111
    send(left, right.ipv4, 9, 1000)
    assert outer.total == 111


def test_nothing_is_left_open(ends: tuple[Namespace, Namespace]) -> None:
    descriptors = Path("/proc/self/fd")
    before, count = open_objects(), len(list(descriptors.iterdir()))
    with Drops(ends) as drops:
        assert len(open_objects()) > len(before)
    assert drops.total == 0
    assert open_objects() == before
    assert len(list(descriptors.iterdir())) == count


# -- what is said ------------------------------------------------------------------------------


def test_reasons_know_their_names(ends: tuple[Namespace, Namespace], bpf_drops: Drops) -> None:
    assert ends
    assert bpf_drops.reasons["NO_SOCKET"] == 0
    with pytest.raises(UnknownNameError, match="did you mean 'NO_SOCKET'"):
        _ = bpf_drops.reasons["NO_SOKCET"]
    with pytest.raises(UnknownNameError, match="did you mean 'right'"):
        _ = bpf_drops["rihgt"]


def test_drops_before_their_beginning_are_an_error() -> None:
    drops = Drops([])
    assert repr(drops) == "<Drops, not started>"
    with pytest.raises(BpfError, match="'with'"):
        _ = drops.total


def test_a_failing_assertion_shows_what_was_dropped(pytester: pytest.Pytester) -> None:
    (pytester.path / "dropping.bpf.c").write_text(PROGRAMS)
    pytester.makepyfile(
        """
        def test_native(bpf, bpf_netns_pair, bpf_drops):
            left, right = bpf_netns_pair
            bpf.load("dropping.bpf.c").programs["drop"].attach(right.iface)
            left.traffic.udp(to=right, count=7)
            assert bpf_drops.xdp == 8

        def test_reasons(bpf_netns_pair, bpf_drops):
            left, right = bpf_netns_pair
            with left.socket(type=2) as sender:
                sender.sendto(b"", (str(right.ipv4), 9))
            assert bpf_drops.total == 0
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--bpf-strict")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E *assert 7 == 8",
            "E *where 7 = <Drops total 7 (XDP 7); right/veth0 rx_queue_0_xdp_drops 7>.xdp",
            "E *assert 1 == 0",
            "E *where 1 = <Drops total 1 (NO_SOCKET 1)>.total",
        ]
    )


# -- what cannot be measured -------------------------------------------------------------------


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ReasonCounter]:
    """A counter whose program does not compile."""
    broken = tmp_path / "broken.bpf.c"
    broken.write_text("int x = ;\n")
    monkeypatch.setattr(reasons_module, "SOURCE", broken)
    with ReasonCounter() as counter:
        yield counter


def test_without_reasons_the_counters_still_work(
    blind: ReasonCounter, programs: Object, ends: tuple[Namespace, Namespace]
) -> None:
    left, right = ends
    with Drops(ends, blind) as drops:
        link = programs.programs["drop"].attach(right.iface)
        left.traffic.udp(to=right, count=10)
        link.detach()
        programs.programs["shot"].attach(right.iface, direction="ingress")
        left.traffic.udp(to=right, count=20)
        assert drops.xdp == 10
        assert drops.tc == 20
        assert drops["right"].xdp == 10
        for figure in ("reasons", "functions", "total"):
            with pytest.raises(UnavailableError, match=r"broken\.bpf\.c:1"):
                getattr(drops, figure)
        shown = "right/veth0 clsact drops 20; right/veth0 rx_queue_0_xdp_drops 10"
        assert repr(drops) == f"<Drops {shown}; reasons not counted>"
        programs.programs["drop"].attach(right.iface, mode="generic")
        with pytest.raises(UnavailableError, match="generic XDP"):
            _ = drops.xdp
        assert drops["left"].xdp == 0


def test_drops_that_found_no_room_are_not_passed_over(ends: tuple[Namespace, Namespace]) -> None:
    with ReasonCounter() as counter:
        with Drops(ends, counter) as drops:
            assert drops.total == 0
            assert counter._object is not None
            counter._object.globals["uncounted"] = 1
            with pytest.raises(UnavailableError, match="more than 4096 ways"):
                _ = drops.total
            assert drops.xdp == 0
        with Drops(ends, counter) as drops:
            assert drops.total == 0


def test_counters_that_went_back_were_made_anew() -> None:
    where = ("left", "veth0")
    earlier = DropCounts(
        interfaces={where: InterfaceDrops(rx_dropped=5)}, drivers={(*where, "d"): 9}
    )
    later = DropCounts(interfaces={where: InterfaceDrops(tx_dropped=7)}, drivers={(*where, "d"): 2})
    between = later - earlier
    assert between.interfaces == {where: InterfaceDrops(tx_dropped=7)}
    assert between.drivers == {(*where, "d"): 2}
    longer = DropCounts(interfaces={where: InterfaceDrops(8, 9)}, drivers={(*where, "d"): 10})
    assert (longer - earlier).interfaces == {where: InterfaceDrops(3, 9)}
    assert (longer - earlier).drivers == {(*where, "d"): 1}
