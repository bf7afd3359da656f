"""Accounting: every byte of a cgroup's sockets, by direction, and nobody else's.

``bpf_traffic`` sends over the loopback of a private namespace, ``cgroup`` and ``to_cgroup`` say
whose sockets send and receive. So a test decides which side of the traffic is accounted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_bpf import Cgroup, Loader, Object, Traffic
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import FindWorst

pytestmark = pytest.mark.bpf_requires(attach="cgroup")

both_versions = pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])

IP = {False: 20, True: 40}
UDP, TCP, TCP_WITH_OPTIONS = 8, 20, 60
"""Bytes of headers."""


@both_versions
def test_udp_is_accounted_to_the_byte(
    bpf: Loader, bpf_cgroup: Cgroup, bpf_traffic: Traffic, ipv6: bool
) -> None:
    obj = attach(bpf, bpf_cgroup)
    bpf_traffic.udp(count=100, size=500, cgroup=bpf_cgroup, ipv6=ipv6)
    account = obj.maps["accounts"][bpf_cgroup.id]
    assert account.sent == (100, 100 * (500 + UDP + IP[ipv6]))
    assert account.received == (0, 0)

    bpf_traffic.udp(count=30, size=0, to_cgroup=bpf_cgroup, ipv6=ipv6)
    account = obj.maps["accounts"][bpf_cgroup.id]
    assert account.sent.packets == 100
    assert account.received == (30, 30 * (UDP + IP[ipv6]))


@both_versions
def test_tcp_is_accounted_with_its_headers(
    bpf: Loader, bpf_cgroup: Cgroup, bpf_traffic: Traffic, ipv6: bool
) -> None:
    obj = attach(bpf, bpf_cgroup)
    sent = bpf_traffic.tcp(count=100, size=10_000, cgroup=bpf_cgroup, ipv6=ipv6)
    assert sent.received == 100
    account = obj.maps["accounts"][bpf_cgroup.id]
    packets, total = account.sent
    assert total >= sent.bytes + packets * (IP[ipv6] + TCP)
    assert total <= 1.1 * sent.bytes + packets * (IP[ipv6] + TCP_WITH_OPTIONS)  # and a lost probe
    packets, total = account.received  # acknowledgements alone
    assert 0 < total <= packets * (IP[ipv6] + TCP_WITH_OPTIONS)


def test_each_child_has_an_account_of_its_own(
    bpf: Loader, bpf_cgroup: Cgroup, bpf_traffic: Traffic
) -> None:
    obj = attach(bpf, bpf_cgroup)
    web, batch = bpf_cgroup.child("web"), bpf_cgroup.child("batch")
    nightly = batch.child("nightly")
    bpf_traffic.udp(count=10, cgroup=web, to_cgroup=batch)
    bpf_traffic.udp(count=5, cgroup=nightly, to_cgroup=batch)
    packets = {
        cgroup: (a.sent.packets, a.received.packets) for cgroup, a in obj.maps["accounts"].items()
    }
    assert packets == {web.id: (10, 0), batch.id: (0, 15), nightly.id: (5, 0)}


def test_traffic_outside_is_not_accounted(
    bpf: Loader, bpf_cgroup: Cgroup, bpf_traffic: Traffic
) -> None:
    inside, beside = bpf_cgroup.child("inside"), bpf_cgroup.child("beside")
    obj = attach(bpf, inside)
    bpf_traffic.udp(count=10)
    bpf_traffic.tcp(count=10, cgroup=beside, to_cgroup=beside)
    bpf_traffic.udp(count=10, cgroup=bpf_cgroup)
    assert len(obj.maps["accounts"]) == 0
    bpf_traffic.udp(count=10, cgroup=inside)
    assert list(obj.maps["accounts"]) == [inside.id]


def test_nothing_is_dropped_when_the_accounts_are_full(
    bpf: Loader, bpf_cgroup: Cgroup, bpf_traffic: Traffic
) -> None:
    obj = attach(bpf, bpf_cgroup, accounts=1)
    first, second = bpf_cgroup.child("first"), bpf_cgroup.child("second")
    assert bpf_traffic.udp(count=10, cgroup=first).received == 10
    assert bpf_traffic.udp(count=20, cgroup=second, to_cgroup=second).received == 20
    assert list(obj.maps["accounts"]) == [first.id]
    assert obj.globals["unaccounted"] == 40


def test_accounts_end_with_the_attachment(
    bpf: Loader, bpf_cgroup: Cgroup, bpf_traffic: Traffic
) -> None:
    obj = attach(bpf, bpf_cgroup)
    obj.links["egress"].detach()
    bpf_traffic.udp(count=10, cgroup=bpf_cgroup, to_cgroup=bpf_cgroup)
    account = obj.maps["accounts"][bpf_cgroup.id]
    assert (account.sent.packets, account.received.packets) == (0, 10)


def attach(bpf: Loader, cgroup: Cgroup, *, accounts: int = 1024) -> Object:
    """Attach both directions to a cgroup."""
    obj = bpf.load("account.bpf.c", max_entries={"accounts": accounts})
    for program in obj.programs.values():
        program.attach(cgroup)
    return obj


@pytest.mark.parametrize("program", ["ingress", "egress"])
@pytest.mark.bpf_requires(exact=True)
@pytest.mark.bpf_claim("no packet costs the accounting of a cgroup more than 1,500 instructions")
def test_the_dearest_packet_is_within_its_budget(
    bpf_worst: FindWorst, bpf_claim: ClaimCheck, program: str
) -> None:
    worst = bpf_worst("account.bpf.c", program=program, count=1000)
    bpf_claim(
        worst.instructions <= 1500,
        f"{program} {worst.instructions:.0f}, of BPF {worst.insns}, for {len(worst.data)} bytes",
    )
