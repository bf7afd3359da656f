"""What becomes of single packets."""

from ipaddress import IPv4Address

import pytest

from pytest_bpf import XdpAction
from pytest_bpf.traffic.packets import Host, tcp_frame, udp_frame

SERVICE = {"address": "203.0.113.9", "port": 53, "protocol": 17, "padding": 0}
BALANCER = Host("02:00:00:00:00:02", IPv4Address(SERVICE["address"]))
OTHER = Host("02:00:00:00:00:02", IPv4Address("203.0.113.8"))
MACS = ["02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"]


@pytest.fixture
def balancer(bpf):
    obj = bpf.load("../bpf/balancer.bpf.c")
    obj.maps["services"][network_order(SERVICE)] = {"first": 2, "count": len(MACS)}
    for number, mac in enumerate(MACS, 2):
        obj.maps["backends"][number] = {"mac": bytes.fromhex(mac.replace(":", ""))}
    return obj


def network_order(service):
    """Ports and addresses of a packet are in network order, and the map's types do not say so."""
    port = int.from_bytes(service["port"].to_bytes(2, "big"), "little")
    return service | {"port": port}


def to_service(source_port=1000):
    return udp_frame(dst=BALANCER, dport=53, sport=source_port)


def test_a_packet_to_the_service_goes_to_a_backend(balancer):
    frame = to_service()
    run = balancer.programs["balance"].test_run(frame)
    assert run.retval == XdpAction.XDP_TX
    assert str(run.packet.eth.dst) in MACS
    assert run.data_out[12:] == frame[12:], "nothing but the MAC addresses changes"


def test_a_flow_stays_with_its_backend_and_flows_are_spread(balancer):
    program = balancer.programs["balance"]
    chosen = {port: {str(program.test_run(to_service(port)).packet.eth.dst) for _ in range(3)}
              for port in range(1000, 1300)}  # fmt: skip
    assert all(len(macs) == 1 for macs in chosen.values())
    counts = [sum(mac in macs for macs in chosen.values()) for mac in MACS]
    assert sum(counts) == 300
    assert min(counts) > 60
    assert [balancer.maps["packets"].sum(n) for n in (2, 3, 4)] == [3 * n for n in counts]


@pytest.mark.parametrize(
    "frame",
    [
        udp_frame(dst=BALANCER, dport=54),
        tcp_frame(dst=BALANCER, dport=53),
        udp_frame(dst=OTHER, dport=53),
        bytes(14),
    ],
    ids=["another port", "TCP", "another address", "too short"],
)
def test_other_packets_pass(balancer, frame):
    run = balancer.programs["balance"].test_run(frame)
    assert run.retval == XdpAction.XDP_PASS
    assert run.data_out == frame


def test_a_service_without_backends_lets_pass(balancer):
    balancer.maps["services"][network_order(SERVICE)] = {"first": 0, "count": 0}
    assert balancer.programs["balance"].test_run(to_service()).retval == XdpAction.XDP_PASS


@pytest.mark.bpf_budget(verified_insns=200, program="balance")
def test_costs(balancer, bpf_measure):
    program = balancer.programs["balance"]
    bpf_measure(program, lambda: program.test_run(to_service(), repeat=100))


def test_lint(bpf, bpf_lint):
    findings = bpf_lint(bpf.open("../bpf/balancer.bpf.c"))
    assert {finding.rule for finding in findings} <= {"split-value"}
