"""Commands that load, pin or attach, and end."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.agents import Agents
from pytest_bpf.cgroup import cgroupfs
from pytest_bpf.errors import AgentError, AttachError
from pytest_bpf.kernel import features
from pytest_bpf.loader import Loader
from pytest_bpf.netns.namespace import Namespace
from pytest_bpf.netns.topology import pair
from tests.conftest import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.cgroup import Cgroup

pytestmark = pytest.mark.skipif(not shutil.which("bpftool"), reason="bpftool is not installed")

SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u64); } hits SEC(".maps");
SEC("xdp") int drop(struct xdp_md *ctx) {
    __u32 key = 0; __u64 *hit = bpf_map_lookup_elem(&hits, &key);
    if (hit) ++*hit; return XDP_DROP; }
SEC("tc") int shot(struct __sk_buff *skb) { return 2; }
SEC("cgroup_skb/egress") int meter(struct __sk_buff *skb) { return 1; }
SEC("sk_lookup") int look(struct bpf_sk_lookup *ctx) { return 1; }
"""
NETFILTER = """
SEC("netfilter") int no_packet(struct bpf_nf_ctx *ctx) { return 0; }
"""


@pytest.fixture(scope="module")
def path() -> Iterator[str]:
    with Loader() as bpf:
        yield str(bpf.compile(HEADER + SOURCE, name="tools").object)


@pytest.fixture
def agents() -> Iterator[Agents]:
    with Agents() as agents:
        yield agents


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as (left, right):
        yield left, right


def test_pins_are_private_and_named(agents: Agents, path: str) -> None:
    load = agents(f"bpftool prog loadall {path} /sys/fs/bpf/x pinmaps /sys/fs/bpf/maps", once=True)
    assert load.exit_status == 0
    assert sorted(load.pins) == [
        "/sys/fs/bpf/maps/hits",
        "/sys/fs/bpf/x/drop",
        "/sys/fs/bpf/x/look",
        "/sys/fs/bpf/x/meter",
        "/sys/fs/bpf/x/shot",
    ]
    assert load.pins["/sys/fs/bpf/x/drop"] is load.programs["drop"]
    assert load.programs["drop"].type == "xdp"
    load.maps["hits"][0] = 7
    assert load.maps["hits"][0] == 7
    assert load.attachments == {}

    again = agents("bpftool map dump pinned /sys/fs/bpf/maps/hits", once=True)
    assert '"value": 7' in again.output
    assert (len(again.programs), len(again.pins)) == (0, 0)

    gone = " ".join(f"/sys/fs/bpf/x/{name}" for name in ("drop", "look", "meter"))
    agents(f"rm {gone} /sys/fs/bpf/maps/hits", once=True)
    assert load.leftovers == ["pin /sys/fs/bpf/x/shot", "program shot"]
    agents("rm -r /sys/fs/bpf/x", once=True)
    assert load.leftovers == []


def test_attachments_are_those_of_the_namespace(
    agents: Agents, path: str, ends: tuple[Namespace, Namespace]
) -> None:
    left, right = ends
    xdp = agents(f"ip link set dev veth0 xdp obj {path} sec xdp", once=True, namespace=right)
    assert [each.hook for each in xdp.attachments["veth0"]] == ["xdp native"]
    agents("tc qdisc add dev veth0 clsact", once=True, namespace=right)
    command = f"tc filter add dev veth0 ingress prio 3 bpf da obj {path} sec tc"
    tc = agents(command, once=True, namespace=right)
    assert [(each.hook, each.priority) for each in tc.attachments["veth0"]] == [("tc ingress", 3)]
    assert list(tc.programs) == ["shot"]

    assert left.traffic.udp(to=right, count=5).received == 0
    assert xdp.maps["hits"][0] == 5

    assert xdp.leftovers == ["map hits", "program drop", "xdp native of veth0: drop"]
    agents("ip link set dev veth0 xdp off", once=True, namespace=right)
    assert xdp.leftovers == []
    assert tc.leftovers == ["program shot", "tc ingress of veth0: shot"]


@pytest.mark.skipif(not features.attach("tcx"), reason="this kernel has no tcx")
def test_what_others_have_attached_is_not_the_command_s(
    agents: Agents, path: str, ends: tuple[Namespace, Namespace]
) -> None:
    _, right = ends
    with Loader() as bpf:
        earlier = bpf.load(path, types={"shot": "tcx/ingress"}).programs["shot"]
        earlier.attach(right.iface, mode="tcx", direction="ingress")
        script = "import sys; from tests.test_agents_once import later; later(sys.argv[1])"
        load = agents([sys.executable, "-c", script, path], once=True, namespace=right)
    assert load.attachments == {}
    assert load.leftovers == []


def later(path: str) -> None:
    """Attach a program to the same hook, and detach it: the hook's revision changes."""
    with Loader() as bpf:
        program = bpf.load(path, types={"shot": "tcx/ingress"}).programs["shot"]
        program.attach(socket.if_nametoindex("veth0"), mode="tcx", direction="ingress").detach()


def test_what_hangs_on_a_cgroup(bpf_agent: Agents, path: str, bpf_cgroup: Cgroup) -> None:
    bpf_agent(f"bpftool prog loadall {path} /sys/fs/bpf/x", once=True)
    words = f"{bpf_cgroup.path} egress pinned /sys/fs/bpf/x/meter"
    attach = bpf_agent(f"bpftool cgroup attach {words} multi", once=True)
    (place,) = attach.attachments
    assert place == str(bpf_cgroup.path)
    assert [each.hook for each in attach.attachments[place]] == ["cgroup_inet_egress"]
    assert list(attach.programs) == ["meter"]
    assert attach.leftovers == [f"cgroup_inet_egress of {place}: meter", "program meter"]

    elsewhere = bpf_cgroup.path / "below"
    elsewhere.mkdir()
    below = bpf_agent(
        f"bpftool cgroup attach {elsewhere} egress pinned /sys/fs/bpf/x/meter", once=True
    )
    assert list(below.attachments) == [str(elsewhere)]
    bpf_agent(f"bpftool cgroup detach {words}", once=True)
    bpf_agent("rm -r /sys/fs/bpf/x", once=True)
    assert attach.leftovers == ["program meter"]  # below has it
    elsewhere.rmdir()


def test_what_stays_on_a_cgroup_that_is_not_the_test_s_is_a_fault(path: str) -> None:
    elsewhere = cgroupfs.current() / f"not-of-the-test-{os.getpid()}"
    elsewhere.mkdir()
    try:
        agents = Agents()
        agents(f"bpftool prog loadall {path} /sys/fs/bpf/x", once=True)
        words = f"{elsewhere} egress pinned /sys/fs/bpf/x/meter"
        agents(f"bpftool cgroup attach {words}", once=True)
        fault = rf"'bpftool' left cgroup_inet_egress of {elsewhere}: meter, which outlives the test"
        with pytest.raises(AgentError, match=fault):
            agents.close()
    finally:
        elsewhere.rmdir()


def pin_link(path: str, program: str, **options: Any) -> None:
    """Attach a program to this process's network namespace, and pin the link."""
    with Loader() as bpf:
        attach = bpf.load(path, programs=[program]).programs[program].attach
        attach("/proc/self/ns/net", **options).pin("/sys/fs/bpf/link")


def test_what_hangs_on_the_namespace(bpf_agent: Agents, path: str, bpf_netns: Namespace) -> None:
    script = (
        "import sys; from tests.test_agents_once import pin_link; pin_link(sys.argv[1], 'look')"
    )
    load = bpf_agent([sys.executable, "-c", script, path], once=True, namespace=bpf_netns)
    assert [each.hook for each in load.attachments["network namespace"]] == ["sk_lookup"]
    assert load.leftovers == [
        "pin /sys/fs/bpf/link",
        "program look",
        "sk_lookup of the network namespace: look",
    ]
    assert load.links["look"].attached
    bpf_agent("rm /sys/fs/bpf/link", once=True)
    assert load.leftovers == []
    assert not load.links["look"].attached
    with pytest.raises(AttachError, match="has no info: it is gone"):
        _ = load.links["look"].id


@pytest.mark.skipif(not features.attach("netfilter"), reason="this kernel has no netfilter links")
def test_what_hangs_on_netfilter(bpf_agent: Agents, bpf: Loader, bpf_netns: Namespace) -> None:
    path = bpf.compile(HEADER + NETFILTER, name="netfilter").object
    script = (
        "import sys; from tests.test_agents_once import pin_link; "
        "pin_link(sys.argv[1], 'no_packet', hook='local_in', priority=-7)"
    )
    load = bpf_agent([sys.executable, "-c", script, path], once=True, namespace=bpf_netns)
    (hook,) = load.attachments["network namespace"]
    assert (hook.hook, hook.program, hook.priority) == ("netfilter ipv4 local_in", "no_packet", -7)
    assert load.links[f"{hook.program}"].info.priority == -7
    bpf_agent("rm /sys/fs/bpf/link", once=True)
    assert load.leftovers == []


@pytest.mark.parametrize("fails", [False, True])
def test_what_stays_attached_outside_is_a_fault(path: str, *, fails: bool) -> None:
    def leave() -> None:
        agents = Agents()
        command = f"ip link set dev lo xdp obj {path} sec xdp"
        if fails:
            with pytest.raises(AgentError, match="'sh' failed: exit status 3"):
                agents(["sh", "-c", f"{command}; exit 3"], once=True)
        else:
            assert agents(command, once=True).leftovers
        with pytest.raises(
            AgentError, match=r"'(ip|sh)' left xdp generic of lo: drop, which outlives the test"
        ):
            agents.close()

    with Namespace() as instead_of_the_hosts:
        instead_of_the_hosts.run(leave)


def test_a_command_that_fails_or_stays_is_an_error(agents: Agents) -> None:
    with pytest.raises(AgentError, match=r"'bpftool' failed: exit status 255; its output:\n.*none"):
        agents("bpftool prog load none.o /sys/fs/bpf/none", once=True)
    assert agents("bpftool nonsense", once=True, check=False).exit_status == 255
    with pytest.raises(AgentError, match=r"did not end within 0.2 s and was killed"):
        agents("sleep 60", once=True, timeout=0.2)
    with pytest.raises(AgentError, match="there is no such command"):
        agents("no-such-loader", once=True)
    code = "import subprocess; subprocess.Popen(['sleep', '60'])"
    with pytest.raises(AgentError, match=r"left processes running, which were killed: .*sleep"):
        agents([sys.executable, "-c", code], once=True)
