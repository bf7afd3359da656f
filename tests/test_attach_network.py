"""Attaching to interfaces, network namespaces and sockets."""

from __future__ import annotations

import socket
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import AttachError, ValueTypeError
from pytest_bpf.netns import Namespace, Topology, pair, router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.objects import Object
    from tests.conftest import Load

HITS = "__u64 hits;\n"
XDP = HITS + 'SEC("xdp") int count(struct xdp_md *ctx) { hits++; return XDP_PASS; }'
TC = HITS + 'SEC("tc") int count(struct __sk_buff *skb) { hits++; return 0; }'


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    with pair() as made:
        yield made


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


def send(sender: Namespace, to: str, port: int = 9) -> None:
    """One datagram; nobody needs to listen."""
    with sender.socket(type=socket.SOCK_DGRAM) as made:
        made.sendto(b"x" * 20, (to, port))


def loopback(namespace: Namespace) -> Any:
    return SimpleNamespace(ifindex=1, namespace=namespace, name="lo")


def exactly(
    obj: Object, count: int, act: Callable[[], object], *target: Any, **options: Any
) -> None:
    """Attach, act, detach, act: the program ran ``count`` times."""
    with obj.programs["count"].attach(*target, **options):
        act()
        assert obj.globals["hits"] == count
    act()
    assert obj.globals["hits"] == count
    obj.globals["hits"] = 0


@pytest.mark.parametrize("mode", [None, "native", "generic"])
def test_xdp(load: Load, topology: Topology, mode: str | None) -> None:
    left, right = topology
    obj = load(XDP)
    exactly(obj, 1, lambda: send(left, str(right.ipv4)), right.iface, mode=mode)
    link = obj.programs["count"].attach(right.iface, mode=mode)
    assert link.id > 0
    with pytest.raises(
        AttachError,
        match=r"EBUSY.*a program is attached there, and XDP runs one",
    ):
        load(XDP).programs["count"].attach(right.iface, mode=mode)
    obj.close()
    exactly(load(XDP), 1, lambda: send(left, str(right.ipv4)), right.iface, mode=mode)


def test_one_program_on_many_interfaces(load: Load) -> None:
    with router() as (left, middle, right):
        obj = load(XDP)
        links = obj.programs["count"].attach_many(middle.interfaces, mode="generic")
        assert [link.info.ifindex for link in links] == [
            i.ifindex for i in middle.interfaces.values()
        ]
        assert left.traffic.ping(to=right).received == 1
        assert obj.globals["hits"] == 2


def test_many_are_attached_or_none(load: Load) -> None:
    with router() as (_, middle, _):
        left, right = middle.interfaces.values()
        busy = load(XDP).programs["count"].attach(right)
        program = load(XDP + "\n").programs["count"]
        with pytest.raises(AttachError, match="EBUSY"):
            program.attach_many([left, right])
        busy.detach()
        assert len(program.attach_many([left, right])) == 2
        with pytest.raises(ValueTypeError, match=r"targets is Interface.*must be Iterable"):
            program.attach_many(left)  # type: ignore[arg-type]
        with pytest.raises(AttachError, match=r"several targets, \['left'\], not one, 'left'"):
            program.attach_many("left")


def test_xdp_on_what_cannot_have_it(load: Load, namespace: Namespace) -> None:
    program = load(XDP).programs["count"]
    for target, options, words in (
        (loopback(namespace), {"mode": "native"}, "that interface has no native XDP, pass mode='g"),
        (loopback(namespace), {"mode": "quick"}, "mode 'quick' is none of 'native', 'generic'"),
        (None, {}, "attaches to an interface, not to None: program.attach"),
        ("nope0", {}, "there is no interface 'nope0' in this network namespace"),
        (4_000_000, {}, "ENODEV|EINVAL"),
        (
            loopback(namespace),
            {"direction": "ingress"},
            "'count' .xdp. takes mode=, replace=, not direction=",
        ),
        (loopback(namespace), {"pid": 3}, "takes mode=, replace=, not pid="),
    ):
        with pytest.raises(AttachError, match=words):
            program.attach(target, **options)
    with pytest.raises(
        AttachError,
        match="neither a section nor attach_to= says where to attach a program; attach each",
    ):
        load(XDP + " ").attach()


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("section", ["tc", "tc/{}", "classifier/{}", "tcx/{}", "tc_{}"])
def test_tc(load: Load, topology: Topology, section: str, direction: str) -> None:
    left, right = topology
    obj = load(TC.replace('"tc"', f'"{section.format(direction)}"'))
    at = left if direction == "egress" else right
    options = {"direction": direction} if section == "tc" else {}
    exactly(obj, 1, lambda: send(left, str(right.ipv4)), at.iface, **options)
    if section == "tc":
        with pytest.raises(AttachError, match="pass direction='ingress' or direction='egress'"):
            obj.programs["count"].attach(at.iface)


def qdiscs(namespace: Namespace) -> bool:
    """Whether the loopback has a clsact qdisc, as the kernel tells by netlink."""
    from pyroute2 import IPRoute

    def kinds() -> list[str]:
        with IPRoute() as route:
            return [found.get_attr("TCA_KIND") for found in route.get_qdiscs(1)]

    return "clsact" in namespace.run(kinds)


def test_tc_filters_share_a_qdisc_that_goes_with_the_last(load: Load, namespace: Namespace) -> None:
    first, second = load(TC), load(TC + " ")
    lo = loopback(namespace)
    one = first.programs["count"].attach(lo, direction="ingress")
    two = second.programs["count"].attach(lo, direction="egress")
    assert qdiscs(namespace)
    one.detach()
    send(namespace, "127.0.0.1")
    assert first.globals["hits"] == 0
    assert second.globals["hits"] >= 1
    two.detach()
    assert not qdiscs(namespace)


def test_a_namespace_that_is_gone_before_its_programs(load: Load) -> None:
    tc, xdp = load(TC), load(XDP)
    with Namespace("short") as short:
        tc.programs["count"].attach(loopback(short), direction="ingress")
        xdp.programs["count"].attach(loopback(short), mode="generic")
    tc.close()
    xdp.close()
    assert tc.closed
    assert xdp.closed


LOOKUP = """
struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(max_entries, 1); __type(key, __u32);
         __type(value, __u64); } server SEC(".maps");
__u64 hits;
SEC("sk_lookup") int count(struct bpf_sk_lookup *ctx) {
    __u32 zero = 0; struct bpf_sock *sk = bpf_map_lookup_elem(&server, &zero);
    hits++; if (!sk) return SK_PASS;
    long error = bpf_sk_assign(ctx, sk, 0); bpf_sk_release(sk); return error ? SK_DROP : SK_PASS; }
"""


def test_sk_lookup_sends_any_port_to_one_socket(load: Load, namespace: Namespace) -> None:
    obj = load(LOOKUP)
    with namespace.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 7007))
        server.settimeout(10)
        obj.maps["server"][0] = server
        with obj.programs["count"].attach(namespace) as link:
            send(namespace, "127.0.0.1", 9999)
            assert server.recv(100) == b"x" * 20
            assert obj.globals["hits"] == 1
            assert link.id > 0
        send(namespace, "127.0.0.1", 9999)
        assert obj.globals["hits"] == 1
    with pytest.raises(AttachError, match="attaches to a network namespace, not to None"):
        obj.programs["count"].attach()
    with pytest.raises(AttachError, match="/no/such is not a network namespace: No such file"):
        obj.programs["count"].attach("/no/such")


def test_flow_dissector(load: Load, topology: Topology) -> None:
    """It runs where a packet's flow hash is needed: for a raw packet of unknown flow."""
    left = topology["left"]
    obj = load(
        HITS + 'SEC("flow_dissector") int count(struct __sk_buff *skb) { hits++; return BPF_OK; }'
    )
    hashing = load(
        'SEC("tc") int hash(struct __sk_buff *skb) { bpf_get_hash_recalc(skb); return 0; }'
    )

    def packet() -> None:
        with left.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((left.iface.name, 0))
            raw.send(bytes(12) + b"\x08\x00" + bytes(50))

    with (
        hashing.programs["hash"].attach(left.iface, direction="egress"),
        obj.programs["count"].attach(left),
    ):
        packet()
        seen = obj.globals["hits"]
        assert seen >= 1
    packet()
    assert obj.globals["hits"] == seen


FILTER = HITS + 'SEC("socket") int count(struct __sk_buff *skb) { hits++; return skb->len; }'


def test_socket_filters(load: Load, namespace: Namespace) -> None:
    obj = load(FILTER)
    with namespace.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        exactly(obj, 1, lambda: send(namespace, "127.0.0.1", port), server)
        kept = obj.programs["count"].attach(server)
    kept.detach()
    with pytest.raises(AttachError, match=r"'count' .socket_filter. attaches to a socket"):
        obj.programs["count"].attach()


REUSEPORT = """
struct { __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY); __uint(max_entries, 2);
         __type(key, __u32); __type(value, __u64); } servers SEC(".maps");
__u64 hits; __u32 chosen;
SEC("sk_reuseport") int count(struct sk_reuseport_md *md) {
    hits++; return bpf_sk_select_reuseport(md, &servers, &chosen, 0) ? SK_DROP : SK_PASS; }
"""


def test_reuseport_chooses_the_socket(load: Load, namespace: Namespace) -> None:
    obj = load(REUSEPORT)
    servers = [namespace.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
    with closing(servers[0]), closing(servers[1]):
        for index, server in enumerate(servers):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("127.0.0.1", servers[0].getsockname()[1]))
            server.settimeout(10)
            obj.maps["servers"][index] = server
        port = servers[0].getsockname()[1]
        link = obj.programs["count"].attach(servers[0])
        for chosen, server in enumerate(servers):
            obj.globals["chosen"] = chosen
            send(namespace, "127.0.0.1", port)
            assert server.recv(100) == b"x" * 20
        link.detach()
        send(namespace, "127.0.0.1", port)
        assert obj.globals["hits"] == 2


SOCKMAP = """
struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(max_entries, 2); __type(key, __u32);
         __type(value, __u64); } sockets SEC(".maps");
__u64 hits, bytes;
SEC("sk_msg") int message(struct sk_msg_md *msg) { hits++; bytes += msg->size; return SK_PASS; }
SEC("sk_skb/stream_verdict") int verdict(struct __sk_buff *skb) {
    hits++; bytes += skb->len; return SK_PASS; }
SEC("sk_skb/verdict") int any(struct __sk_buff *skb) {
    hits++; bytes += skb->len; return SK_PASS; }
"""


@pytest.mark.parametrize("name", ["message", "verdict", "any"])
def test_sockmap_programs(load: Load, namespace: Namespace, name: str) -> None:
    obj = load(SOCKMAP)
    sockets = obj.maps["sockets"]
    with namespace.socket() as listener, namespace.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        server = listener.accept()[0]
        server.settimeout(10)
        with server:
            link = obj.programs[name].attach(sockets)
            with pytest.raises(AttachError, match=f"one program of that kind, which is '{name}'"):
                obj.programs[name].attach(sockets)
            sockets[0] = client if name == "message" else server
            client.sendall(b"x" * 100)
            assert server.recv(100) == b"x" * 100
            assert (obj.globals["hits"], obj.globals["bytes"]) == (1, 100)
            del sockets[0]  # a socket keeps the programs that it came to in the map
            link.detach()
            sockets[0] = client if name == "message" else server
            client.sendall(b"y" * 10)
            assert server.recv(100) == b"y" * 10
            assert obj.globals["hits"] == 1
    with pytest.raises(AttachError, match=f"'{name}' .* attaches to a sockmap"):
        obj.programs[name].attach(client)
