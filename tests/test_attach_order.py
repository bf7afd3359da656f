"""Several programs on one hook: tcx, tc filters and cgroups, in the order that is asked for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.cgroup import Cgroup
from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import features
from pytest_bpf.netns import Namespace, Topology, pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Object
    from tests.conftest import Load

BODY = "(struct __sk_buff *ctx) { order = order * 10 + "
TCX = "__u64 order;\n" + "\n".join(
    f'SEC("tcx/ingress") int p{n}{BODY}{n}; return TCX_NEXT; }}' for n in (1, 2, 3)
)
TC = "__u64 order;\n" + "\n".join(
    f'SEC("tc/ingress") int p{n}{BODY}{n}; return -1; }}' for n in (1, 2, 3)
)
EGRESS = "__u64 order;\n" + "\n".join(
    f'SEC("cgroup_skb/egress") int p{n}{BODY}{n}; return 1; }}' for n in (1, 2, 3)
)

needs_tcx = pytest.mark.skipif(not features.attach("tcx"), reason="this kernel has no tcx")


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    with pair() as made:
        yield made


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    with Cgroup() as made:
        yield made


def order_of(obj: Object, topology: Topology) -> int:
    """Return the numbers of the programs in the order in which they saw one packet."""
    left, right = topology
    obj.globals["order"] = 0
    with left.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (str(right.ipv4), 9))
    return int(obj.globals["order"])


@needs_tcx
def test_tcx_programs_run_in_the_order_of_attaching(load: Load, topology: Topology) -> None:
    obj, iface = load(TCX), topology["right"].iface
    links = [obj.programs[name].attach(iface) for name in ("p1", "p2", "p3")]
    assert order_of(obj, topology) == 123
    assert (links[0].info.type, links[0].info.attach_type) == ("tcx", "tcx_ingress")
    assert links[0].info.ifindex == iface.ifindex
    links[1].detach()
    assert order_of(obj, topology) == 13


@needs_tcx
@pytest.mark.parametrize(
    ("place", "order"),
    [
        ({"first": True}, 312),
        ({"last": True}, 123),
        ({"before": "p2"}, 132),
        ({"after": "p1"}, 132),
        ({"before": "link of p1"}, 312),
    ],
)
def test_a_tcx_program_goes_where_it_is_told_to(
    load: Load, topology: Topology, place: dict[str, Any], order: int
) -> None:
    obj, iface = load(TCX), topology["right"].iface
    links = {name: obj.programs[name].attach(iface) for name in ("p1", "p2")}
    anchors = {
        name: links[text[-2:]] if str(text).startswith("link") else obj.programs[text]
        for name, text in place.items()
        if isinstance(text, str)
    }
    obj.programs["p3"].attach(iface, **{**place, **anchors})
    assert order_of(obj, topology) == order


@needs_tcx
def test_tcx_is_not_the_same_as_a_filter(load: Load, topology: Topology) -> None:
    iface = topology["right"].iface
    by_section, by_mode = load(TCX), load(TC)
    assert by_section.programs["p1"].attach(iface, mode="clsact").fd == -1
    assert by_mode.programs["p1"].attach(iface, mode="tcx").info.type == "tcx"


@needs_tcx
def test_wrong_places_of_tcx(load: Load, topology: Topology) -> None:
    obj, iface = load(TCX), topology["right"].iface
    one, two = obj.programs["p1"], obj.programs["p2"]
    xdp = load('SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }').programs["pass"]
    for options, words in (
        ({"before": two}, "ENOENT.*the program or link of before= or after= is not attached there"),
        ({"before": xdp}, "EINVAL.*before= and after= take a program of the same kind and hook"),
        ({"before": two, "first": True}, "one place at a time, not before=, first="),
        ({"before": 7}, "before= and after= take a program or a link, not 7"),
        ({"revision": 4000}, "ESTALE.*the programs there changed since revision 4000"),
        ({"priority": 3}, "priority= and handle= go with mode='clsact'"),
        ({"mode": "native"}, "mode 'native' is none of 'clsact', 'tcx'"),
        ({"befor": two}, r"attach\(\) has no option befor=; did you mean 'before'"),
        ({"revision": "x"}, "revision= takes an integer, not 'x'"),
    ):
        with pytest.raises(AttachError, match=words):
            one.attach(iface, **options)
    link = one.attach(iface)
    link_of_two = two.attach(iface)
    link_of_two.detach()
    with pytest.raises(AttachError, match=r"<Link p2 -> .*, detached> is detached"):
        one.attach(iface, before=link_of_two)
    with pytest.raises(AttachError, match=r"EEXIST.*this program is attached there already"):
        one.attach(iface)
    link.detach()
    assert order_of(obj, topology) == 0


def test_filters_run_by_priority_and_without_one_the_newest_first(
    load: Load, topology: Topology
) -> None:
    iface = topology["right"].iface
    obj = load(TC)
    for name, priority in (("p1", 30), ("p2", 10), ("p3", 20)):
        obj.programs[name].attach(iface, priority=priority, handle=1)
    assert order_of(obj, topology) == 231
    obj.close()
    obj = load(TC)
    for name in ("p1", "p2", "p3"):
        obj.programs[name].attach(iface)
    assert order_of(obj, topology) == 321
    with pytest.raises(AttachError, match="filters are ordered by priority=; before="):
        obj.programs["p1"].attach(iface, before=obj.programs["p2"])
    taken = load(TC)
    taken.programs["p1"].attach(iface, priority=5, handle=1)
    with pytest.raises(AttachError, match=r"EEXIST.*the handle 1 of priority=5 is taken"):
        taken.programs["p2"].attach(iface, priority=5, handle=1)


def sends(cgroup: Cgroup, namespace: Namespace, obj: Object) -> int:
    obj.globals["order"] = 0

    def send() -> None:
        with namespace.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))

    cgroup.run(send)
    return int(obj.globals["order"])


def test_modes_of_a_cgroup(load: Load, cgroup: Cgroup) -> None:
    obj = load(EGRESS)
    one, two, three = (obj.programs[name] for name in ("p1", "p2", "p3"))
    with Namespace() as namespace:
        with one.attach(cgroup), two.attach(cgroup):
            assert sends(cgroup, namespace, obj) == 12
        with one.attach(cgroup, mode="multi"), two.attach(cgroup, mode="multi"):
            assert sends(cgroup, namespace, obj) == 12
            with three.attach(cgroup, mode="multi", replace=one):
                assert sends(cgroup, namespace, obj) == 32
        with one.attach(cgroup, mode="exclusive") as link:
            assert link.fd == -1
            assert sends(cgroup, namespace, obj) == 1
            with pytest.raises(AttachError, match=r"EPERM.*was attached with another mode="):
                two.attach(cgroup)
            for mode in ("exclusive", "override"):
                with pytest.raises(AttachError, match=r"of each kind, and 'p1' is attached there"):
                    two.attach(cgroup, mode=mode)
            assert sends(cgroup, namespace, obj) == 1
        assert sends(cgroup, namespace, obj) == 0


def test_wrong_modes_of_a_cgroup(load: Load, cgroup: Cgroup) -> None:
    obj = load(EGRESS)
    one, two = obj.programs["p1"], obj.programs["p2"]
    for options, words in (
        ({"mode": "many"}, "cgroup mode 'many' is none of 'exclusive', 'override', 'multi'"),
        ({"replace": two}, "replace= goes with mode='multi'"),
        ({"mode": "multi", "replace": two}, "ENOENT.*the program of replace= is not attached"),
    ):
        with pytest.raises(AttachError, match=words):
            one.attach(cgroup, **options)


def test_a_cgroup_program_without_a_direction_takes_one(load: Load, cgroup: Cgroup) -> None:
    source = "__u64 order;\n" + f'SEC("cgroup/skb") int p1{BODY}1; return 1; }}'
    obj = load(source)
    with pytest.raises(AttachError, match="pass direction='ingress' or direction='egress'"):
        obj.programs["p1"].attach(cgroup)
    with Namespace() as namespace, obj.programs["p1"].attach(cgroup, direction="egress"):
        assert sends(cgroup, namespace, obj) == 1
