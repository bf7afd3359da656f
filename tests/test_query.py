"""What hangs on an interface, a cgroup or a network namespace, in order, whoever attached it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.cgroup import Cgroup
from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import features
from pytest_bpf.netns import Namespace, Topology, pair
from pytest_bpf.objects.link.query import query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Load

SOURCE = """
SEC("xdp") int on_xdp(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tcx/ingress") int one(struct __sk_buff *ctx) { return -1; }
SEC("tcx/ingress") int two(struct __sk_buff *ctx) { return -1; }
SEC("tc/egress") int three(struct __sk_buff *ctx) { return -1; }
SEC("cgroup_skb/egress") int out(struct __sk_buff *ctx) { return 1; }
SEC("cgroup/connect4") int connect(struct bpf_sock_addr *ctx) { return 1; }
SEC("sk_lookup") int look(struct bpf_sk_lookup *ctx) { return SK_PASS; }
"""


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    with pair() as made:
        yield made


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.skipif(not features.attach("tcx"), reason="this kernel has no tcx")
def test_an_interface(load: Load, topology: Topology, mode: str) -> None:
    obj, iface = load(SOURCE), topology["right"].iface
    assert query(iface) == []
    obj.programs["on_xdp"].attach(iface, mode=mode)
    two, one = obj.programs["two"].attach(iface), obj.programs["one"].attach(iface, first=True)
    obj.programs["three"].attach(iface, priority=7, handle=2)
    attachments = query(iface)
    assert [(each.hook, each.program) for each in attachments] == [
        (f"xdp {mode}", "on_xdp"),
        ("tcx_ingress", "one"),
        ("tcx_ingress", "two"),
        ("tc egress", "three"),
    ]
    assert [each.link_id for each in attachments[1:3]] == [one.id, two.id]
    assert (attachments[3].priority, attachments[3].handle) == (7, 2)
    assert attachments[3].program_id == obj.programs["three"].id
    assert [each.program for each in query(iface, "tcx")] == ["one", "two"]
    revision = attachments[1].revision
    two.detach()
    with pytest.raises(AttachError, match="ESTALE"):
        obj.programs["two"].attach(iface, revision=revision)
    obj.programs["two"].attach(iface, revision=query(iface, "tcx")[0].revision)


def test_chains_of_filters(load: Load, topology: Topology) -> None:
    program, iface = load(SOURCE).programs["three"], topology["left"].iface
    options: Any = {"chain": 3, "priority": 5, "handle": 2}
    there = program.attach(iface, **options)
    program.attach(iface, chain=3)
    program.attach(iface)
    assert [(each.chain, each.priority) for each in query(iface)] == [
        (0, 49152),
        (3, 5),
        (3, 49152),
    ]
    with pytest.raises(AttachError, match=r"EEXIST.*the handle 2 of priority=5 is taken"):
        program.attach(iface, **options)
    there.detach()
    assert [each.chain for each in query(iface)] == [0, 3]
    with pytest.raises(AttachError, match="chain"):
        program.attach(iface, chain=-1)


def test_a_cgroup(load: Load) -> None:
    obj = load(SOURCE)
    with Cgroup() as cgroup:
        obj.programs["connect"].attach(cgroup)
        obj.programs["out"].attach(cgroup, mode="multi")
        wanted = [("cgroup_inet_egress", "out"), ("cgroup_inet4_connect", "connect")]
        assert [(each.hook, each.program) for each in query(cgroup)] == wanted
        assert query(str(cgroup.path)) == query(Path(cgroup.path)) == query(cgroup)


def test_a_network_namespace(load: Load) -> None:
    obj = load(SOURCE)
    with Namespace() as namespace:
        assert query(namespace) == []
        obj.programs["look"].attach(namespace)
        assert [(each.hook, each.program) for each in query(namespace)] == [("sk_lookup", "look")]


def test_what_cannot_be_queried() -> None:
    with pytest.raises(AttachError, match="query takes an interface, a cgroup or a network names"):
        query(3.5)
    with pytest.raises(AttachError, match="/no/such cannot be queried: No such file"):
        query("/no/such")
    with pytest.raises(
        AttachError, match="there is no interface 4000000 in this network namespace that"
    ):
        query(4_000_000)


def test_interfaces_that_cannot_be_queried(topology: Topology) -> None:
    for target, words in (
        (2**31 - 1, "there is no interface 2147483647 in this network namespace that could be"),
        ("nothing", "no interface 'nothing' in this network namespace; pass a namespace's .iface"),
        ("/nothing", "/nothing cannot be queried: No such file"),
    ):
        with pytest.raises(AttachError, match=words):
            query(target)
    assert topology["left"].run(query, "lo") == []
    with pair() as (left, _):
        iface = left.iface
        left.ipr.link("del", index=iface.ifindex)
        with pytest.raises(AttachError, match=r"there is no interface 2 in left"):
            query(iface)
