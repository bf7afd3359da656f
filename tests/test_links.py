"""Links are objects with state: another program in the same place, pins, what the kernel tells."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.cgroup import Cgroup
from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.kinds.programs import PROGRAMS
from pytest_bpf.netns import Topology, pair
from pytest_bpf.objects import Link
from pytest_bpf.objects.link.options import AttachOptions, Options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Load

XDP = """
__u64 hits;
SEC("xdp") int old(struct xdp_md *ctx) { hits += 1; return XDP_PASS; }
SEC("xdp") int new(struct xdp_md *ctx) { hits += 100; return XDP_PASS; }
SEC("tracepoint/syscalls/sys_enter_getppid") int trace(void *ctx) { return 0; }
"""


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    with pair() as made:
        yield made


@pytest.fixture
def pins() -> Iterator[Path]:
    with PinDirectory() as directory:
        yield directory.path


def send(topology: Topology) -> None:
    left, right = topology
    with left.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (str(right.ipv4), 9))


def test_another_program_takes_the_place_without_a_gap(load: Load, topology: Topology) -> None:
    obj, iface = load(XDP), topology["right"].iface
    old, new, trace = (obj.programs[name] for name in ("old", "new", "trace"))
    link = old.attach(iface)
    send(topology)
    link.update(new)
    send(topology)
    assert obj.globals["hits"] == 101
    assert link.program == "new"
    assert link.info.program_id == new.id
    for program, expected, words in (
        (old, old, "EPERM.*'old' is not the one attached"),
        (trace, None, "EINVAL.*is of another type"),
    ):
        with pytest.raises(AttachError, match=words):
            link.update(program, old=expected)
    link.update(old, old=new)
    send(topology)
    assert obj.globals["hits"] == 102
    link.detach()
    with pytest.raises(AttachError, match="has no update: it is detached"):
        link.update(new)


def test_what_the_kernel_tells_of_a_link(load: Load, topology: Topology) -> None:
    obj, iface = load(XDP), topology["right"].iface
    link = obj.programs["old"].attach(iface)
    info = link.info
    assert (info.type, info.ifindex, info.program_id) == (
        *("xdp", iface.ifindex),
        obj.programs["old"].id,
    )
    assert info.id == link.id
    assert info.cgroup_id is None
    trace = obj.programs["trace"].attach()
    assert trace.info.type == "perf_event"
    with pytest.raises(AttachError, match=r"EINVAL.*links of type perf_event may not be updated"):
        trace.update(obj.programs["trace"])


def test_a_link_of_a_cgroup(load: Load) -> None:
    obj = load('SEC("cgroup_skb/egress") int pass(struct __sk_buff *ctx) { return 1; }')
    with Cgroup() as cgroup, obj.programs["pass"].attach(cgroup) as link:
        assert link.info.attach_type == "cgroup_inet_egress"
        assert link.info.cgroup_id == os.stat(cgroup.path).st_ino  # noqa: PTH116 (as the kernel)


SEVERED = """
SEC("xdp") int x(struct xdp_md *ctx) { return XDP_PASS; }
SEC("cgroup_skb/egress") int c(struct __sk_buff *ctx) { return 1; }
SEC("sk_lookup") int n(struct bpf_sk_lookup *ctx) { return 1; }
"""


def test_a_link_whose_target_is_gone_attaches_nothing(load: Load) -> None:
    programs = load(SEVERED).programs
    with pair() as (left, _), Cgroup() as cgroup:
        links = {
            "interface": programs["x"].attach(left.iface),
            "cgroup": programs["c"].attach(cgroup),
            "network namespace": programs["n"].attach(left),
        }
        assert all(link.attached and not link.severed for link in links.values())
        left.ipr.link("del", index=left.iface.ifindex)
        assert not links["interface"].attached
    for target, link in links.items():
        deadline = time.monotonic() + 30  # the kernel takes both apart by and by, and tells nobody
        while link.attached and time.monotonic() < deadline:
            time.sleep(0.01)
        assert link.severed == f"its {target} is gone, or it was detached elsewhere"
        link.detach()
        assert (link.attached, link.severed) == (False, "")


def test_a_link_that_was_detached_by_its_pin(load: Load, topology: Topology, pins: Path) -> None:
    link = load(XDP).programs["old"].attach(topology["right"].iface)
    link.pin(pins / "link")
    Link.from_pin(pins / "link").detach()
    assert not link.attached
    assert "detached elsewhere" in link.severed


def test_a_pinned_link_stays_until_it_is_detached(
    load: Load, topology: Topology, pins: Path
) -> None:
    obj, iface = load(XDP), topology["right"].iface
    obj.programs["old"].attach(iface).pin(pins / "link")
    obj.close()
    again = Link.from_pin(pins / "link")
    assert (again.info.type, again.info.ifindex) == ("xdp", iface.ifindex)
    other = load(XDP)
    with pytest.raises(AttachError, match=r"EBUSY"):
        other.programs["new"].attach(iface)
    again.update(other.programs["new"])
    send(topology)
    assert other.globals["hits"] == 100
    again.detach()
    other.programs["old"].attach(iface)


def test_a_pinned_link_of_tracing_ends_with_its_pin(load: Load, pins: Path) -> None:
    link = load(XDP).programs["trace"].attach()
    link.pin(pins / "trace")
    with pytest.raises(AttachError, match=f"remove {re.escape(str(pins / 'trace'))}"):
        link.detach()
    assert link.attached
    (pins / "trace").unlink()
    link.detach()
    assert not link.attached


def test_what_is_no_pinned_link(load: Load, pins: Path, tmp_path: Path) -> None:
    program = load(XDP).programs["old"]
    program.pin(pins / "program")
    with pytest.raises(AttachError, match=r"there is no link at .*/program, but a program"):
        Link.from_pin(pins / "program")
    with pytest.raises(AttachError, match=r"there is no link at .*/missing: ENOENT: No such file"):
        Link.from_pin(pins / "missing")
    link = load(XDP).programs["trace"].attach()
    with pytest.raises(AttachError, match=r"cannot be pinned to .*; is that on a bpffs\?"):
        link.pin(tmp_path / "link")


def test_xdp_replaces_a_program_without_a_link(load: Load, topology: Topology) -> None:
    obj, iface = load(XDP), topology["right"].iface
    old, new = obj.programs["old"], obj.programs["new"]
    with pytest.raises(AttachError, match=r"cannot be attached to .*(EEXIST|ENOENT|EBUSY)"):
        new.attach(iface, replace=old)
    with old.attach(iface), pytest.raises(AttachError, match=r"EBUSY"):
        new.attach(iface, replace=old)


COOKIES = """
__u64 seen;
SEC("tracepoint/syscalls/sys_enter_getppid") int tp(void *ctx) {
    seen = bpf_get_attach_cookie(ctx); return 0; }
SEC("perf_event") int sample(struct bpf_perf_event_data *ctx) {
    seen = bpf_get_attach_cookie(ctx); return 0; }
"""


def test_a_cookie_reaches_the_program(load: Load) -> None:
    obj = load(COOKIES)
    with obj.programs["tp"].attach(cookie=4711):
        os.getppid()
    assert obj.globals["seen"] == 4711
    with pytest.raises(AttachError, match="cookie= takes an integer, not 'x'"):
        obj.programs["tp"].attach(cookie="x")  # type: ignore[arg-type]


ITERATORS = """
#include <bpf/bpf_tracing.h>
SEC("iter/task") int tasks(struct bpf_iter__task *ctx) {
    struct task_struct *task = ctx->task;
    if (task) BPF_SEQ_PRINTF(ctx->meta->seq, "%d %d\\n", task->tgid, task->pid);
    return 0; }
SEC("iter/cgroup") int cgroups(struct bpf_iter__cgroup *ctx) {
    struct cgroup *cgroup = ctx->cgroup;
    if (cgroup) BPF_SEQ_PRINTF(ctx->meta->seq, "%llu\\n", cgroup->kn->id);
    return 0; }
"""


def test_an_iterator_over_one_process_or_thread(load: Load) -> None:
    tasks = load(ITERATORS, programs=["tasks"]).programs["tasks"]
    lines = tasks.attach(pid=os.getpid()).read().splitlines()
    assert {line.split()[0] for line in lines} == {str(os.getpid())}
    assert tasks.attach(tid=os.getpid()).read().splitlines() == [f"{os.getpid()} {os.getpid()}"]
    with pytest.raises(AttachError, match="order= is for iterators over cgroups"):
        tasks.attach(order="self_only")


def test_an_iterator_over_cgroups(load: Load) -> None:
    cgroups = load(ITERATORS, programs=["cgroups"]).programs["cgroups"]
    with Cgroup() as cgroup:
        number = str(os.stat(cgroup.path).st_ino)  # noqa: PTH116 (as the kernel)
        assert cgroups.attach(cgroup, order="self_only").read().split() == [number]
        assert cgroups.attach(cgroup, order="ancestors_up").read().split()[0] == number
        with pytest.raises(AttachError, match="order 'up' is none of self_only, "):
            cgroups.attach(cgroup, order="up")
    with pytest.raises(AttachError, match="an iterator over cgroups takes a cgroup"):
        cgroups.attach()


def test_the_options_are_written_once() -> None:
    assert list(AttachOptions.__annotations__) == list(Options.__annotations__)
    taken = {option for kind in PROGRAMS.values() for option in kind.options}
    assert taken == set(Options.__annotations__)


@pytest.mark.parametrize("kind", [kind for kind in PROGRAMS.values() if kind.way])
def test_each_kind_has_a_way_and_a_probe(kind: Any) -> None:
    from importlib import import_module

    for way in (kind.way, *kind.modes.values()):
        assert callable(import_module(f"pytest_bpf.objects.link.ways.{way}").attach)
    if kind.probe:
        assert kind.probe in features.ATTACH_KINDS
