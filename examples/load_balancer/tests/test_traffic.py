"""A client, the balancer and two backends on a bridge."""

import socket

import pytest

from pytest_bpf.netns import Namespace

ADDRESS = "203.0.113.9"
PORT = 53
FLOWS = 40


def serve(host: Namespace) -> socket.socket:
    """Return a socket of a backend, which has the service's address."""
    lo = host.ipr.link_lookup(ifname="lo")[0]
    host.ipr.addr("add", index=lo, address=ADDRESS, prefixlen=32)
    server = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((ADDRESS, PORT))
    server.settimeout(5)
    return server


@pytest.mark.bpf_requires(attach="xdp")
def test_flows_reach_the_backends(bpf, bpf_places, bpf_drops):
    client, balancer, *backends, _bridge = bpf_places.bridge(4, xdp=True)
    obj = bpf.load("../bpf/balancer.bpf.c")
    service = {"address": ADDRESS, "port": socket.htons(PORT), "protocol": 17, "padding": 0}
    obj.maps["services"][service] = {"first": 0, "count": len(backends)}
    for number, backend in enumerate(backends):
        obj.maps["backends"][number] = {"mac": bytes.fromhex(backend.iface.mac.replace(":", ""))}
    obj.programs["balance"].attach(balancer.iface, mode="native")

    index = client.iface.ifindex
    client.ipr.route("add", dst=f"{ADDRESS}/32", oif=index)
    client.ipr.neigh("add", dst=ADDRESS, lladdr=balancer.iface.mac, ifindex=index, state=0x80)

    servers = [serve(backend) for backend in backends]
    for _ in range(FLOWS):
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
            flow.sendto(b"question", (ADDRESS, PORT))

    sent = [obj.maps["packets"].sum(number) for number in range(len(backends))]
    assert sum(sent) == FLOWS
    assert min(sent) > 0
    for server, count in zip(servers, sent, strict=True):
        answers = [server.recvfrom(64) for _ in range(count)]
        assert {data for data, _ in answers} == {b"question"}
        assert {address for _, (address, _) in answers} == {str(client.ipv4)}
        server.close()
    assert bpf_drops.total == 0
