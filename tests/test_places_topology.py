from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import PlaceError, UnavailableError, UnknownNameError
from pytest_bpf.netns import End, Layout, Namespace, Topology, bridge, impair, pair, router, wiring
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

ETH_P_ALL = 3
REPORT_INTERVAL = 1.2
"""Seconds: longer than the kernel waits before it repeats a multicast report."""


def exchange(here: Namespace, there: Namespace, family: socket.AddressFamily) -> bytes:
    """Send a datagram over and back."""
    address = there.ipv4 if family == socket.AF_INET else there.ipv6
    with (
        there.socket(family, socket.SOCK_DGRAM) as server,
        here.socket(family, socket.SOCK_DGRAM) as client,
    ):
        for end in (server, client):
            end.settimeout(5)
        server.bind((str(address), 0))
        client.connect(server.getsockname()[:2])
        client.send(b"there")
        data, back = server.recvfrom(100)
        server.sendto(data + b" and back", back)
        return client.recv(100)


def received(namespace: Namespace) -> dict[str, int]:
    """Packets received, by interface: what XDP sees."""
    table = namespace.run(lambda: Path("/proc/thread-self/net/dev").read_text())
    rows = (line.split(":") for line in table.splitlines()[2:])
    return {name.strip(): int(counters.split()[1]) for name, counters in rows}


def listen(namespace: Namespace) -> socket.socket:
    return namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("quiet", [True, False])
def test_the_ends_of_a_pair_reach_each_other(
    family: socket.AddressFamily,
    *,
    quiet: bool,
) -> None:
    with pair(quiet=quiet) as (left, right):
        assert exchange(left, right, family) == b"there and back"
        assert exchange(right, left, family) == b"there and back"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_router_forwards_between_its_sides(family: socket.AddressFamily) -> None:
    with router() as (left, middle, right):
        assert exchange(left, right, family) == b"there and back"
        assert received(middle)["left"] == received(middle)["right"] == 1


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_hosts_on_a_bridge_reach_each_other_and_nobody_else_sees_it(
    family: socket.AddressFamily,
) -> None:
    with bridge(4) as topology:
        first, second, *others, switch = topology
        assert exchange(first, second, family) == b"there and back"
        assert [received(n)["veth0"] for n in (first, second, *others)] == [1, 1, 0, 0]
        assert list(switch.interfaces) == ["br0", "port1", "port2", "port3", "port4"]


@pytest.mark.parametrize("make", [pair, router, bridge])
def test_a_fresh_topology_is_silent(make: Callable[[], Topology]) -> None:
    with make() as topology:
        ends = [listen(namespace) for namespace in topology]
        try:
            heard, _, _ = select.select(ends, [], [], REPORT_INTERVAL)
            assert [end.recv(2000).hex() for end in heard] == []
        finally:
            for end in ends:
                end.close()
        for namespace in topology:
            assert set(received(namespace).values()) == {0}


def test_one_datagram_is_one_packet() -> None:
    with pair() as (left, right):
        exchange(left, right, socket.AF_INET)
        exchange(left, right, socket.AF_INET6)
        assert received(left)["veth0"] == received(right)["veth0"] == 2


def test_not_quiet_resolves_neighbours() -> None:
    with pair(quiet=False) as (left, right):
        exchange(left, right, socket.AF_INET)
        assert received(right)["veth0"] >= 2


def test_the_real_flags_are_set_after_the_quiet_start() -> None:
    with pair() as (left, _):
        shown = left.popen(["ip", "-o", "link", "show", "veth0"], stdout=subprocess.PIPE)
        flags = (
            shown.communicate(timeout=60)[0].decode().partition("<")[2].partition(">")[0].split(",")
        )
        assert {"UP", "LOWER_UP", "MULTICAST", "BROADCAST"} <= set(flags)
        assert "NOARP" not in flags


def test_arp_requests_are_answered() -> None:
    with pair() as (left, right), listen(left) as wire:
        wire.bind(("veth0", 0x0806))
        wire.settimeout(5)
        mac, asked = bytes.fromhex(left.iface.mac.replace(":", "")), right.ipv4.packed
        request = bytes.fromhex("0001080006040001") + mac + left.ipv4.packed + bytes(6) + asked
        wire.send(b"\xff" * 6 + mac + b"\x08\x06" + request)
        answer = wire.recv(100)
        assert answer[20:22] == b"\x00\x02"
        assert answer[22:28].hex(":") == right.iface.mac


def test_names_mtu_and_queues_are_as_asked() -> None:
    with pair(interfaces=("a234567890bcdef", "b"), mtu=9000, queues=3) as (left, right):
        assert list(left.interfaces) == ["a234567890bcdef"]
        shown = right.popen(
            ["ip", "-d", "-o", "link", "show", "b"], stdout=subprocess.PIPE
        ).communicate(timeout=60)[0]
        assert b" mtu 9000 " in shown
        assert b" numtxqueues 3 " in shown
        assert b" numrxqueues 3 " in shown


@pytest.mark.parametrize(
    ("interfaces", "sentence"),
    [
        (("lo", "b"), "the interface name 'lo' is taken in namespace 'left'; choose another"),
        (("a" * 16, "b"), "is too long: 16 bytes, at most 15"),
        (("a", "b/c"), "'b/c' is no interface name"),
        (("", "b"), "'' is no interface name"),
    ],
)
def test_a_bad_interface_name_is_one_sentence(interfaces: tuple[str, str], sentence: str) -> None:
    with pytest.raises(PlaceError, match=sentence):
        pair(interfaces=interfaces)


def test_a_name_is_taken_once_in_a_namespace_only() -> None:
    a, b, c = (End(name, "eth0") for name in "abc")
    with pytest.raises(PlaceError, match="'eth0' is taken in namespace 'a'"):
        Layout(((a, b), (a, c)))
    with Topology(Layout(((a, b), (End("a", "eth1"), c)))) as topology:
        assert [list(namespace.interfaces) for namespace in topology] == [
            ["eth0", "eth1"],
            ["eth0"],
            ["eth0"],
        ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mtu": 10}, "an mtu is from 68 to 65535, not 10"),
        ({"queues": 0}, "the number of queues is from 1 to 4096, not 0"),
        ({"ifindex": 1}, "the first ifindex is from 2 to 2147483646, not 1"),
        ({"ifindex": 2**31 - 1}, "the first ifindex is from 2 to 2147483646, not 2147483647"),
    ],
)
def test_numbers_out_of_range(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(PlaceError, match=sentence):
        pair(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [pair, router, bridge])
def test_indexes_begin_where_asked(make: Callable[..., Topology]) -> None:
    with make(ifindex=100_000) as topology:
        indexes = [i.ifindex for n in topology for i in n.interfaces.values()]
        assert sorted(indexes) == list(range(100_000, 100_000 + len(indexes)))
        first, *_ = topology
        last = topology["host3" if make is bridge else "right"]
        assert first.traffic.ping(to=last).received == 1


def test_both_ends_of_a_cable_may_be_in_one_namespace() -> None:
    ends = End("a", "x", "192.0.2.1/24"), End("a", "y", "192.0.2.2/24")
    with Topology(Layout((ends,))) as places:
        x, y = (places["a"].interfaces[name] for name in "xy")
        with y.capture(direction="in") as capture:
            places["a"].traffic.frames([udp_frame(x, y)] * 3, iface="x")
        assert capture.frames == [udp_frame(x, y)] * 3


def test_bad_layouts_are_refused_before_anything_is_made() -> None:
    with pytest.raises(PlaceError, match=r"'192\.0\.2\.1' is no IPv4 address with a prefix"):
        Layout(((End("a", "x", ipv4="192.0.2.1"), End("b", "x")),))
    with pytest.raises(PlaceError, match="there is no bridge 'br0' in 'a'"):
        Layout(((End("a", "x", bridge="br0"), End("b", "x")),))
    with pytest.raises(PlaceError, match="a bridge has from 1 to 100 hosts, not 0"):
        bridge(0)


def test_what_the_kernel_refuses_leaves_nothing() -> None:
    pair().close()
    threads = threading.active_count()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    ends = End("a", "x", "192.0.2.1/24"), End("b", "x", "192.0.2.2/24")
    with pytest.raises(PlaceError, match=r"refused the default route by 198\.51\.100\.1: .+"):
        Topology(Layout((ends,), gateways=(("a", "198.51.100.1"),)))
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_namespaces_are_found_by_name_and_position() -> None:
    with pair() as topology:
        left, right = topology
        assert (topology["left"], topology[1], len(topology)) == (left, right, 2)
        with pytest.raises(UnknownNameError, match="'rihgt' in this topology; did you mean 'ri"):
            topology["rihgt"]
    topology.close()
    with pytest.raises(PlaceError, match="closed"):
        left.run(int)


def test_a_small_mtu_has_no_ipv6() -> None:
    with pair(mtu=1000) as (left, right):
        assert left.iface.ipv6 is None
        with pytest.raises(PlaceError, match="veth0 in namespace 'left' has no IPv6 address"):
            _ = left.ipv6
        assert exchange(left, right, socket.AF_INET) == b"there and back"


def test_namespaces_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    create_many = Namespace.create_many

    def without_ipv6(names: Iterable[str]) -> list[Namespace]:
        made = create_many(names)
        for namespace in made:
            namespace.run(wiring.NO_IPV6.write_text, "1")
        return made

    monkeypatch.setattr(Namespace, "create_many", without_ipv6)
    with router() as (left, _, right):
        assert left.iface.ipv6 is None
        assert exchange(left, right, socket.AF_INET) == b"there and back"


def test_a_kernel_without_ipv6(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wiring, "NO_IPV6", tmp_path / "no such file")
    assert not wiring.has_ipv6()


def test_threads_make_pairs_at_the_same_time() -> None:
    def make() -> set[int]:
        inodes = set()
        for _ in range(5):
            with pair() as (left, right):
                assert exchange(left, right, socket.AF_INET6) == b"there and back"
                inodes |= {left.inode, right.inode}
        return inodes

    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(make) for _ in range(4)]
        assert all(result.result() for result in results)


def test_processes_make_places_at_the_same_time() -> None:
    script = """
from pytest_bpf.cgroup import Cgroup
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.netns import pair
from pytest_bpf.netns.places import sweep
for _ in range(5):
    with pair() as (left, right), Cgroup() as cgroup, PinDirectory() as pins:
        sweep()  # what others left may go, and what they use may not
        assert cgroup.path.exists()
        assert pins.path.exists()
        assert cgroup.run(left.popen, ["true"]).wait(60) == 0
"""
    command = [sys.executable, "-W", "error", "-c", script]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == [b"", b"", b""]
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_netem_delays_or_says_that_the_kernel_cannot() -> None:
    with pair() as (left, right):
        try:
            impair(left.iface, delay=0.02, loss=0.0, rate=1e9)
        except UnavailableError as error:
            assert "CONFIG_NET_SCH_NETEM" in str(error)  # noqa: PT017 - one of two outcomes
            assert left.delay == 0.0
            return
        shown = left.popen(["tc", "qdisc", "show", "dev", "veth0"], stdout=subprocess.PIPE)
        said = shown.communicate(timeout=60)[0].decode()
        assert "netem" in said
        assert "delay 20ms" in said
        assert "rate 1Gbit" in said
        assert (left.delay, right.delay) == (0.02, 0.0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": 1.5}, "netem's loss is from 0 to 1, not 1.5"),
        ({"delay": -1.0}, "netem's delay is from 0 to "),
        ({"delay": 0.1, "jitter": 0.2}, "netem's jitter is from 0 to 0.1, not 0.2"),
    ],
)
def test_netem_refuses_what_makes_no_sense(options: dict[str, float], sentence: str) -> None:
    with pair() as (left, _), pytest.raises(PlaceError, match=sentence):
        impair(left.iface, **options)  # type: ignore[arg-type]


def test_traffic_is_made_once() -> None:
    with pair() as (left, _):
        assert left.traffic is left.traffic


def test_errno_is_kept_as_the_cause() -> None:
    ends = End("a", "x", "192.0.2.1/24"), End("b", "x", "192.0.2.2/24")
    with pytest.raises(PlaceError) as caught:
        Topology(Layout((ends,), gateways=(("a", "198.51.100.1"),)))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENETUNREACH
