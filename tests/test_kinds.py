"""The table of the kinds of programs."""

from __future__ import annotations

import pytest

from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.features import ATTACH_KINDS
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.kinds.programs import (
    PROGRAMS,
    names_target,
    parse_section,
    pass_value,
    program_kind,
    types_with,
)


@pytest.mark.parametrize(
    ("section", "kind", "attach_type", "target", "sleepable"),
    [
        ("xdp", "xdp", "XDP", "", False),
        ("?xdp.frags", "xdp", "XDP", "", False),
        ("xdp.frags/devmap", "xdp_devmap", "XDP_DEVMAP", "", False),
        ("tcx/egress", "tcx", "TCX_EGRESS", "", False),
        ("tc", "tc", None, "", False),
        ("netkit/peer", "netkit", "NETKIT_PEER", "", False),
        ("cgroup/connect_unix", "cgroup_sock_addr", "CGROUP_UNIX_CONNECT", "", False),
        ("fentry.s/vfs_read", "fentry", "TRACE_FENTRY", "vfs_read", True),
        ("iter.s/task", "iter", "TRACE_ITER", "task", True),
        ("uprobe//bin/true:main+0x4", "uprobe", None, "/bin/true:main+0x4", False),
        ("usdt/libc.so.6:libc:setjmp", "usdt", None, "libc.so.6:libc:setjmp", False),
        ("uprobe.multi.s/x:*", "uprobe_multi", "TRACE_UPROBE_MULTI", "x:*", True),
        ("kprobe.session/tcp_*", "kprobe_session", "TRACE_KPROBE_SESSION", "tcp_*", False),
        ("raw_tp.w/nbd_send_request", "raw_tp_writable", None, "nbd_send_request", False),
        ("tp/sched/sched_switch", "tracepoint", None, "sched/sched_switch", False),
        ("sk_skb/verdict", "sk_skb", "SK_SKB_VERDICT", "", False),
        ("struct_ops.s/init", "struct_ops", None, "init", True),
    ],
)
def test_what_a_section_says(
    section: str, kind: str, attach_type: str | None, target: str, sleepable: bool
) -> None:
    parsed = parse_section(section)
    assert parsed is not None
    assert (parsed.kind.name, parsed.target, parsed.sleepable) == (kind, target, sleepable)
    assert parsed.attach_type == (AttachType[attach_type] if attach_type else 0)
    assert program_kind(parsed.kind.type, section).name == kind


@pytest.mark.parametrize("section", ["xdp_mark", "socket1", "", "/", "maps", ".s"])
def test_a_section_of_ones_own_says_nothing(section: str) -> None:
    assert parse_section(section) is None


def test_a_program_without_a_section_is_known_by_its_types() -> None:
    assert program_kind("sched_cls").name == "tc"
    assert program_kind("sched_cls", "mine", AttachType.TCX_EGRESS).name == "tcx"
    assert program_kind("tracing", "", AttachType.TRACE_ITER).name == "iter"
    assert program_kind("xdp", "socket").name == "xdp"  # the type says more than the section
    assert program_kind("of_tomorrow").way == ""
    assert not names_target("xdp", "xdp")
    assert names_target("tracing", "fentry")


def test_every_type_of_libbpf_has_a_row() -> None:
    assert {row.type for row in PROGRAMS.values()} == set(enums.PROGRAM_TYPES) - {"unspec"}
    assert pass_value("xdp") == 2
    assert (pass_value("lsm"), pass_value("lsm", "lsm_cgroup/socket_bind")) == (0, 1)
    assert {"xdp", "sched_cls", "netfilter"} <= types_with("test_run", "packet")


def test_a_section_belongs_to_one_row() -> None:
    prefixes = [prefix for row in PROGRAMS.values() for prefix in row.sections]
    assert len(prefixes) == len(set(prefixes))


def test_probes_of_the_rows_exist() -> None:
    assert {row.probe for row in PROGRAMS.values()} - {""} <= set(ATTACH_KINDS)


def test_attach_types_are_the_kernels() -> None:
    members = enums.kernel_enum("enum bpf_attach_type", "BPF_")
    if not members:
        pytest.skip("no BTF of the kernel")
    for member in AttachType:
        number = members.get(member.name.lower(), int(member))
        assert number == member, member
