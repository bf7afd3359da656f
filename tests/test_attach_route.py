"""Programs of lightweight tunnels, on the routes of a network namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import features
from pytest_bpf.netns import Topology, pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Load

pytestmark = pytest.mark.skipif(
    not features.program_type("lwt_xmit"), reason="this kernel has no programs on routes"
)

SOURCE = """
__u64 hits; int verdict;
SEC("lwt_xmit") int leaving(struct __sk_buff *skb) { hits++; return verdict; }
SEC("lwt_out") int out(struct __sk_buff *skb) { hits++; return verdict; }
SEC("lwt_in") int into(struct __sk_buff *skb) { hits++; return verdict; }
SEC("lwt_seg6local") int local(struct __sk_buff *skb) { return 0; }
"""

DROP = 2
"""``BPF_DROP`` of ``enum bpf_ret_code``."""


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    with pair() as topology:
        yield topology


@pytest.mark.parametrize("program", ["leaving", "out"])
@pytest.mark.parametrize("network", ["192.0.2.0/24", "2001:db8::/64"])
def test_a_program_sees_the_packets_of_its_route(
    load: Load, topology: Topology, program: str, network: str
) -> None:
    left, right = topology
    obj = load(SOURCE)
    ipv6 = ":" in network
    with obj.programs[program].attach(network, netns=left) as link:
        assert left.traffic.udp(to=right, count=10, ipv6=ipv6).received == 10
        assert obj.globals["hits"] >= 10
        obj.globals["verdict"] = DROP
        assert left.traffic.udp(to=right, count=10, ipv6=ipv6).received == 0
        assert link.target == f"the route to {network}"
    obj.globals["hits"] = 0
    assert left.traffic.udp(to=right, count=10, ipv6=ipv6).received == 10
    assert obj.globals["hits"] == 0


def test_the_default_route_and_a_namespace_that_is_gone(load: Load) -> None:
    program = load(SOURCE).programs["out"]
    with pair() as (left, right):
        left.ipr.route("add", dst="0.0.0.0/0", gateway=str(right.ipv4))
        link = program.attach("0.0.0.0/0", netns=left)
    link.detach()
    assert not link.attached


def test_what_is_wrong_is_said(load: Load, topology: Topology) -> None:
    left, _ = topology
    programs = load(SOURCE).programs
    with pytest.raises(AttachError, match=r"takes netns=, the namespace of the route, not None"):
        programs["out"].attach("192.0.2.0/24")
    with pytest.raises(AttachError, match=r"such as '192.0.2.0/24', not to nowhere"):
        programs["out"].attach("nowhere", netns=left)
    with pytest.raises(AttachError, match=r"has no route to 198.51.100.0/24; add one"):
        programs["out"].attach("198.51.100.0/24", netns=left)
    with pytest.raises(AttachError, match=r"has no route to 0.0.0.0/0"):
        programs["out"].attach("0.0.0.0/0", netns=left)
    with pytest.raises(AttachError, match=r"belongs to a route; attach\(\) cannot attach it"):
        programs["local"].attach("192.0.2.0/24")
