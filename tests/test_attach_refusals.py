"""What cannot be attached is one sentence: what, where, and what to do."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import AttachError, UnavailableError, UnknownNameError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.netns import Namespace, Topology, pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Load

SOURCE = """
__u64 seen;
SEC("xdp") int filter(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int other(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp/devmap") int entry(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tp/syscalls/sys_enter_getpidd") int trace(void *ctx) { return 0; }
SEC("lwt_in") int route(struct __sk_buff *ctx) { return 0; }
SEC("classifier") int classify(struct __sk_buff *ctx) { return 0; }
SEC("syscall") int call(void *ctx) { return 0; }
SEC("raw_tp/sys_enter") int raw(void *ctx) { seen = bpf_get_attach_cookie(ctx); return 0; }
"""


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    with pair() as made:
        yield made


def set_mtu(topology: Topology, mtu: int) -> None:
    from pyroute2 import IPRoute

    for namespace in topology:

        def change(index: int = namespace.iface.ifindex) -> None:
            with IPRoute() as route:
                route.link("set", index=index, mtu=mtu)

        namespace.run(change)


def test_what_has_no_place_of_its_own(load: Load, topology: Topology) -> None:
    iface = topology["right"].iface
    programs = load(SOURCE, programs=["entry", "trace", "route", "call", "filter"]).programs
    wrong: tuple[tuple[str, Any, str], ...] = (
        ("entry", iface, r"'entry' .xdp/devmap. belongs to an entry of a devmap; attach"),
        ("route", iface, "takes netns=, the namespace of the route"),
        ("call", None, "belongs to no hook, test_run.. runs it; attach"),
        ("trace", None, "no tracepoint 'syscalls:sys_enter_getpidd'; did you mean 'syscalls:sys_e"),
        ("trace", "nothing", "no tracepoint 'nothing'"),
        ("filter", topology["left"], "attaches to an interface, not to left"),
    )
    for name, target, words in wrong:
        with pytest.raises(AttachError, match=words):
            programs[name].attach(target)


@pytest.mark.parametrize("mode", ["xdp", "clsact", "tcx"])
def test_interfaces_that_are_not_there(load: Load, mode: str) -> None:
    if mode == "tcx" and not features.attach("tcx"):
        pytest.skip("this kernel has no tcx")
    with pair() as (left, right):
        obj = load(SOURCE, programs=["filter", "classify"])
        program = obj.programs["filter" if mode == "xdp" else "classify"]
        options: dict[str, Any] = {} if mode == "xdp" else {"mode": mode, "direction": "ingress"}
        iface = right.iface
        left.ipr.link("del", index=left.iface.ifindex)
        gone = rf"veth0: E.*; there is no interface {iface.ifindex} in right"
        with pytest.raises(AttachError, match=gone):
            program.attach(iface, **options)
        with pytest.raises(AttachError, match="no interface 2147483647 in this network namespace"):
            program.attach(2**31 - 1, **options)
        assert not obj.links


def test_xdp_runs_one_program(load: Load, topology: Topology) -> None:
    program, iface = load(SOURCE, programs=["filter"]).programs["filter"], topology["right"].iface
    with (
        program.attach(iface),
        pytest.raises(AttachError, match=r"EBUSY.*XDP runs one: link.update\(\) or replace="),
    ):
        program.attach(iface)


@pytest.mark.parametrize(
    ("place", "more"),
    [
        (
            "syscalls/sys_enter_close",
            r"beyond the 24 bytes .*in C it is struct syscall_trace_enter",
        ),
        ("syscalls/sys_exit_close", r"beyond the 24 bytes .*in C it is struct syscall_trace_enter"),
        ("sched/sched_switch", r"beyond the \d+ bytes of this tracepoint's record.$"),
    ],
)
def test_a_context_is_read_beyond_the_record_of_its_tracepoint(
    load: Load, place: str, more: str
) -> None:
    source = f"""
    __u64 last;
    SEC("tracepoint/{place}") int trace(__u64 *ctx) {{ last = ctx[100]; return 0; }}
    """
    program = load(source).programs["trace"]
    with pytest.raises(AttachError, match=f"EACCES: Permission denied .the program reads .*{more}"):
        program.attach()


def test_what_is_attached_once_and_no_more(load: Load) -> None:
    source = """
    SEC("flow_dissector") int flow(struct __sk_buff *ctx) { return 0; }
    SEC("tracepoint/syscalls/sys_enter_getpid") int call(void *ctx) { return 0; }
    """
    programs = load(source).programs
    flow, call = programs["flow"], programs["call"]
    with (
        Namespace() as namespace,
        flow.attach(namespace),
        pytest.raises(AttachError, match=r"E2BIG: .*; a network namespace has one flow dissector"),
    ):
        flow.attach(namespace)
    with (
        call.attach(),
        pytest.raises(AttachError, match=r"EEXIST: .*; this program is attached there already"),
    ):
        call.attach()


def test_an_mtu_that_native_xdp_does_not_take(load: Load, topology: Topology) -> None:
    program, iface = load(SOURCE, programs=["filter"]).programs["filter"], topology["right"].iface
    set_mtu(topology, 9000)
    try:
        with pytest.raises(AttachError, match="its MTU of 9000 bytes, or its peer's, is too large"):
            program.attach(iface, mode="native")
        program.attach(iface, mode="generic").detach()
    finally:
        set_mtu(topology, 1500)


def test_xdp_takes_the_place_of_the_expected_program_alone(load: Load, topology: Topology) -> None:
    programs, iface = load(SOURCE, programs=["filter", "other"]).programs, topology["right"].iface
    old, new = programs["filter"], programs["other"]

    def by_netlink(fd: int) -> None:
        iface.namespace.run(libbpf.call, "bpf_xdp_attach", iface.ifindex, fd, 0, None)

    by_netlink(old.fd)
    try:
        with pytest.raises(AttachError, match="of replace= is not the one attached there"):
            new.attach(iface, replace=new)
        with new.attach(iface, replace=old), pytest.raises(AttachError):
            old.attach(iface, replace=old)
    finally:
        by_netlink(-1)
    old.attach(iface)


def test_programs_attached_by_name(load: Load) -> None:
    obj = load(SOURCE, programs=["raw", "filter"])
    obj.attach("raw")
    assert list(obj.links) == ["raw"]
    with pytest.raises(UnknownNameError, match="has no program 'row'; did you mean 'raw'"):
        obj.attach("row")
    with pytest.raises(AttachError, match=r"'filter' .xdp. attaches to an interface, not to None"):
        obj.attach("filter")


def test_a_raw_tracepoint_that_does_not_exist(load: Load) -> None:
    program = load(SOURCE, programs=["raw"]).programs["raw"]
    with pytest.raises(AttachError, match="no raw tracepoint 'sys_entr'; did you mean 'sys_enter'"):
        program.attach("sys_entr")


def test_a_raw_tracepoint_knows_its_cookie(load: Load) -> None:
    obj = load(SOURCE, programs=["raw"])
    with obj.programs["raw"].attach(cookie=77):
        os.getppid()
    assert obj.globals["seen"] == 77


@pytest.mark.skipif(bool(features.attach("netkit")), reason="this kernel has netkit")
def test_netkit_on_a_kernel_without_it(load: Load, topology: Topology) -> None:
    obj = load('SEC("netkit/primary") int p(struct __sk_buff *ctx) { return -1; }')
    with pytest.raises(UnavailableError, match=r"'p' .netkit/primary. cannot be attached here: "):
        obj.programs["p"].attach(topology["right"].iface)


def test_values_of_options_that_cannot_be(load: Load, topology: Topology) -> None:
    source = (
        SOURCE
        + """
SEC("tc/ingress") int tc(struct __sk_buff *ctx) { return 0; }
SEC("uprobe") int up(void *ctx) { return 0; }
SEC("tcx/ingress") int tcx(struct __sk_buff *ctx) { return -1; }
SEC("cgroup/dev") int dev(void *ctx) { return 1; }
"""
    )
    programs = load(source, programs=["filter", "tc", "up", "tcx", "dev", "raw"]).programs
    iface = topology["right"].iface
    wrong: tuple[tuple[str, Any, dict[str, Any], str], ...] = (
        ("filter", iface, {"mode": 3}, "mode= takes text, not 3"),
        ("filter", iface, {"replace": 3}, "replace= takes a program, not 3"),
        ("filter", -4, {}, "attaches to an interface, not to -4"),
        ("filter", 2**40, {}, "attaches to an interface, not to 1099511627776"),
        ("tc", iface, {"priority": 70000}, "priority=70000; a filter's is 1 to 65535"),
        ("tc", iface, {"priority": -1}, "priority=-1; a filter's is 1 to 65535"),
        ("tc", iface, {"handle": 2**32}, "handle=4294967296 is out of range, 0 to 4294967295"),
        ("tcx", iface, {"first": 1}, "first= takes True or False, not 1"),
        ("tcx", iface, {"revision": -1}, "revision=-1 is out of range, 0 to"),
        ("raw", None, {"cookie": -1}, "cookie=-1 is out of range, 0 to 18446744073709551615"),
        ("raw", None, {"cookie": 1.5}, "cookie= takes an integer, not 1.5"),
        ("up", None, {"binary": 7}, "binary= takes a path, not 7"),
        ("up", None, {"binary": "libc.so.6", "function": 7}, "function= takes text, not 7"),
        ("up", None, {"binary": "libc.so.6", "function": "abs+x"}, "'x' in 'abs.x' is no number"),
        ("up", None, {"binary": "libc.so.6", "offset": -1}, "offset=-1 is out of range"),
        ("up", None, {"binary": "libc.so.6", "offset": 2**50}, "EINVAL"),
        ("dev", -1, {}, "attaches to a cgroup, not to -1"),
        ("dev", 9999, {}, "attaches to a cgroup, and descriptor 9999 is none"),
    )
    for name, target, options, words in wrong:
        with pytest.raises(AttachError, match=words):
            programs[name].attach(target, **options)
    link = programs["filter"].attach(iface)
    with pytest.raises(AttachError, match=r"update\(\) takes programs, not 3"):
        link.update(3)


PLACES = """
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("tc") int pass(struct __sk_buff *ctx) { return 0; }
SEC("flow_dissector") int dissect(struct __sk_buff *ctx) { return BPF_OK; }
SEC("iter/udp") int sockets(struct bpf_iter__udp *ctx) { return 0; }
SEC("iter/bpf_map_elem") int elements(struct bpf_iter__bpf_map_elem *ctx) { return 0; }
SEC("iter/task") int tasks(struct bpf_iter__task *ctx) { return 0; }
SEC("sk_reuseport") int choose(struct sk_reuseport_md *ctx) { return SK_PASS; }
SEC("socket") int first(struct __sk_buff *ctx) { return 0; }
"""


def test_places_and_options_that_do_not_fit(load: Load, topology: Topology) -> None:
    programs = load(PLACES).programs
    iface, namespace = topology["right"].iface, topology["right"]
    link = programs["dissect"].attach(namespace)
    unready, closed = socket.socket(), socket.socket()
    closed.close()
    wrong: tuple[tuple[str, Any, dict[str, Any], str], ...] = (
        ("pass", iface, {"direction": "in"}, "direction='in' is none of 'ingress', 'egress'"),
        ("pass", iface, {}, "does not say where; pass direction='ingress' or"),
        ("drop", iface, {"replace": programs["pass"]}, "replace= takes the XDP program that is"),
        ("dissect", namespace, {}, "a network namespace has one flow dissector, and 64"),
        ("sockets", namespace, {}, "takes no target, not right: netns= is the network namespace"),
        ("elements", None, {}, "an iterator over a map takes a map, not None"),
        ("tasks", namespace, {}, "an iterator over a map takes a map, not right"),
        ("tasks", None, {"pid": 2**22 + 1}, "there is no process or thread 4194305"),
        ("tasks", None, {"tid": 2**22 + 1}, "there is no process or thread 4194305"),
        ("choose", unready, {}, "takes a socket of UDP or TCP with SO_REUSEPORT set"),
        ("first", closed, {}, "EBADF.*that socket is closed"),
    )
    for name, target, options, words in wrong:
        with pytest.raises(AttachError, match=words):
            programs[name].attach(target, **options)
    unready.close()
    link.detach()
    programs["dissect"].attach(namespace).detach()


PROBES = """
SEC("usdt") int probe(struct pt_regs *ctx) { return 0; }
SEC("uprobe") int function(struct pt_regs *ctx) { return 0; }
SEC("perf_event") int sample(struct bpf_perf_event_data *ctx) { return 0; }
SEC("raw_tp") int trace(void *ctx) { return 0; }
"""


def test_probes_that_cannot_be(load: Load) -> None:
    programs = load(PROBES).programs
    setjmp = {"binary": "libc.so.6", "provider": "libc", "function": "setjmp"}
    wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("probe", setjmp, "has no maps for USDT: include <bpf/usdt.bpf.h>"),
        ("probe", setjmp, "has no maps for USDT: include <bpf/usdt.bpf.h>"),  # libbpf says it once
        ("function", {"binary": "libc.so.6", "offset": 2**40}, "offset= is a place in the file's"),
        ("sample", {"frequency": 10**9}, "frequency= is at most the sysctl kernel.perf_event_max"),
        ("sample", {"frequency": 9, "cpu": 4000}, "cpu= the number of a CPU that is online"),
    )
    sample = programs["sample"].attach(frequency=9, pid=os.getpid())
    assert f"9 Hz of process {os.getpid()}" in repr(sample)
    sample.detach()
    for name, options, words in wrong:
        with pytest.raises(AttachError, match=words):
            programs[name].attach(**options)
    with pytest.raises(AttachError, match=r"no raw tracepoint '-'; there are \d+: ") as caught:
        programs["trace"].attach("-")
    assert len(str(caught.value)) < 500
