"""BCC sources: loaded by BCC, and then like all other objects."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import (
    CompileError,
    LoadError,
    UnavailableError,
    UnknownNameError,
    VerifierError,
    XdpAction,
    measure,
)
from pytest_bpf.bcc import headers, loading
from pytest_bpf.bcc.members import struct_of, type_of
from pytest_bpf.bcc.sections import program_type, sections
from pytest_bpf.kernel.btf.c_types import Struct
from pytest_bpf.kernel.sys.descriptors import open_objects
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf import Object

TEXT = """\
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>

struct key_t { u32 pid; char tag; };
struct event_t { u32 pid; u64 number; char comm[16]; };

BPF_HASH(calls, struct key_t, u64, 64);
BPF_PERCPU_ARRAY(by_cpu, u64, 2);
BPF_PERF_OUTPUT(to_perf);
BPF_RINGBUF_OUTPUT(to_ring, 8);

TRACEPOINT_PROBE(syscalls, sys_enter_getpgid)
{
    struct key_t key = {};
    struct event_t event = {};
    u64 zero = 0, *calls_so_far;
    int slot = 1;

    key.pid = bpf_get_current_pid_tgid() >> 32;
    if (key.pid != ONLY)
        return 0;
    key.tag = 'x';
    calls_so_far = calls.lookup_or_try_init(&key, &zero);
    if (calls_so_far)
        event.number = ++*calls_so_far;
    by_cpu.increment(slot);
    event.pid = key.pid;
    bpf_get_current_comm(&event.comm, sizeof(event.comm));
    to_perf.perf_submit(args, &event, sizeof(event));
    to_ring.ringbuf_output(&event, sizeof(event), 0);
    return 0;
}

int drop(struct xdp_md *ctx) { return XDP_DROP; }
int classify(struct __sk_buff *skb) { return 2; }
int on_call(struct pt_regs *ctx)
{
    int slot = 0;

    if (bpf_get_current_pid_tgid() >> 32 == ONLY)
        by_cpu.increment(slot);
    return 0;
}
int sample(struct bpf_perf_event_data *ctx) { int slot = 0; by_cpu.increment(slot); return 0; }
"""


@pytest.fixture(scope="module")
def headers_here() -> str | None:
    """What to pass as headers: nothing where the running kernel has some, else the distribution's.

    Those do for what these programs use of the kernel.
    """
    loading.python()
    return headers.usable()


@pytest.fixture
def bpf() -> Iterator[Loader]:
    before = open_objects()
    with Loader() as loader:
        yield loader
    assert open_objects() == before


@pytest.fixture
def obj(bpf: Loader, headers_here: str | None) -> Object:
    return bpf.load_bcc(TEXT, name="calls.c", defines={"ONLY": os.getpid()}, headers=headers_here)


@pytest.fixture(scope="module")
def shared(headers_here: str | None) -> Iterator[Object]:
    """The same for tests that leave it as it was, but for what it counts."""
    with Loader() as loader:
        yield loader.load_bcc(TEXT, defines={"ONLY": os.getpid()}, headers=headers_here)


def test_a_tracepoint_with_tables_and_events(obj: Object) -> None:
    events = [obj.maps[name].events() for name in ("to_perf", "to_ring")]
    obj.attach()
    for _ in range(3):
        os.getpgid(0)
    assert dict(obj.maps["calls"].items()) == {(os.getpid(), ord("x")): 3}
    assert obj.maps["by_cpu"].sum(1) == 3
    for reader in events:
        read = reader.read(count=3)
        assert [event.number for event in read] == [1, 2, 3]
        assert {event.pid for event in read} == {os.getpid()}
        assert {event.comm for event in read} == {Path("/proc/self/comm").read_text().strip()}
    obj.links["tracepoint__syscalls__sys_enter_getpgid"].detach()
    os.getpgid(0)
    assert obj.maps["by_cpu"].sum(1) == 3


def test_programs_have_kinds_and_costs(shared: Object) -> None:
    kinds = {name: (program.type, program.section) for name, program in shared.programs.items()}
    assert kinds == {
        "tracepoint__syscalls__sys_enter_getpgid": (
            "tracepoint",
            "tracepoint/syscalls/sys_enter_getpgid",
        ),
        "drop": ("xdp", "xdp"),
        "classify": ("sched_cls", "tc"),
        "on_call": ("kprobe", "kprobe"),
        "sample": ("perf_event", "perf_event"),
    }
    traced = shared.programs["tracepoint__syscalls__sys_enter_getpgid"]
    assert traced.verified_insns == traced.verifier.total_insns > 50
    assert traced.verifier.stack_depth > 0
    drop = shared.programs["drop"]
    assert drop.test_run(bytes(64), {"data_end": 64}).retval == XdpAction.XDP_DROP
    assert measure(drop, lambda: drop.test_run(bytes(64), repeat=20), batches=3).per_run > 0


def test_xdp_and_tc_on_an_interface(shared: Object) -> None:
    from pytest_bpf.netns import pair

    with pair() as (left, right):
        assert left.traffic.udp(to=right, count=3).received == 3
        with shared.programs["drop"].attach(right.iface):
            assert left.traffic.udp(to=right, count=3, timeout=0.1).received == 0
        with shared.programs["classify"].attach(right.iface, direction="ingress"):
            assert left.traffic.udp(to=right, count=3, timeout=0.1).received == 0
        assert left.traffic.udp(to=right, count=3).received == 3


def test_samples(shared: Object) -> None:
    until, before = time.monotonic() + 120, shared.maps["by_cpu"].sum(0)
    with shared.programs["sample"].attach(pid=os.getpid(), frequency=1000) as link:
        assert link.id > 0
        while shared.maps["by_cpu"].sum(0) == before:
            assert time.monotonic() < until, "never sampled"
    seen = shared.maps["by_cpu"].sum(0)
    sum(range(10**6))
    assert shared.maps["by_cpu"].sum(0) == seen


def test_a_function_of_a_library(shared: Object) -> None:
    libc, before = ctypes.CDLL(None), shared.maps["by_cpu"].sum(0)
    address = ctypes.cast(libc.getppid, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, _, offset, _, _, *path = line.split()
        start, end = (int(part, 16) for part in where.split("-"))
        if start <= address < end:
            break
    place = address - start + int(offset, 16)
    with shared.programs["on_call"].attach(binary=path[0], offset=place):
        for _ in range(3):
            libc.getppid()
    libc.getppid()
    assert shared.maps["by_cpu"].sum(0) == before + 3
    with shared.programs["on_call"].attach(binary=path[0], function="getppid"):
        libc.getppid()
    assert shared.maps["by_cpu"].sum(0) == before + 4


def test_a_file_and_given_sections(bpf: Loader, headers_here: str | None, tmp_path: Path) -> None:
    source = tmp_path / "named.c"
    source.write_text(
        "BPF_ARRAY(hits, u64, 1);\n"
        "int anything(void *ctx) { int zero = 0; hits.increment(zero); return 0; }\n"
    )
    hook = {"anything": "raw_tracepoint/sys_enter"}
    obj = bpf.load_bcc(source, sections=hook, headers=headers_here)
    assert obj.path == source
    obj.attach()
    os.getpgid(0)
    assert obj.maps["hits"][0] > 0
    with pytest.raises(UnknownNameError, match=r"named.c has no program 'anythink'; did you mean"):
        bpf.load_bcc(source, sections={"anythink": "xdp"}, headers=headers_here)
    with pytest.raises(LoadError, match="there is no section 'kpobe/x' for BCC sources; did you"):
        bpf.load_bcc(source, sections={"anything": "kpobe/x"}, headers=headers_here)


def test_macros_are_those_of_other_sources(bpf: Loader, headers_here: str | None) -> None:
    text = "int pass(struct xdp_md *ctx) { return YES ? XDP_PASS : MISSING; }\n"
    with pytest.raises(CompileError, match="'NO-NAME' cannot be defined: it is not a C identifier"):
        bpf.load_bcc(text, defines={"NO-NAME": 1}, headers=headers_here)
    with pytest.raises(CompileError, match="undeclared identifier 'MISSING'") as caught:
        bpf.load_bcc(text, sections={"pass": "xdp"}, defines={"YES": True}, headers=headers_here)
    assert "'True'" not in caught.value.output


def test_what_the_compiler_says(bpf: Loader, headers_here: str | None) -> None:
    with pytest.raises(CompileError) as caught:
        bpf.load_bcc(
            "int bad(void *ctx)\n{ return nothing; }\n", name="bad.c", headers=headers_here
        )
    assert str(caught.value) == "bad.c:2:10: use of undeclared identifier 'nothing' (BCC)"
    assert "return nothing" in caught.value.output


def test_what_the_verifier_says(
    bpf: Loader, headers_here: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = "int bad(struct xdp_md *ctx)\n{\n    return *(u8 *)(long)ctx->data;\n}\n"
    with pytest.raises(VerifierError, match=r"^bad.c:3: the verifier.* 'bad': invalid") as caught:
        bpf.load_bcc(bad, name="bad.c", headers=headers_here)
    assert caught.value.program == "bad"
    assert "R1" in caught.value.log
    assert capfd.readouterr() == ("", "")


def test_a_missing_file(bpf: Loader) -> None:
    with pytest.raises(CompileError, match=r"none\.c: cannot be read: No such file"):
        bpf.load_bcc("none.c")


def test_no_bcc(bpf: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "DEBIAN_S", (Path("/no/python3"), Path("/no/bcc")))
    with pytest.raises(UnavailableError, match="BCC is not installed: apt install python3-bpfcc"):
        bpf.load_bcc(TEXT)


def test_no_headers(
    bpf: Loader, headers_here: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del headers_here
    with pytest.raises(
        UnavailableError, match=r"has no kernel headers: no include/linux/kconfig.h"
    ):
        bpf.load_bcc(TEXT, headers=tmp_path)
    monkeypatch.setattr(platform, "release", lambda: "9.9.9-none")
    monkeypatch.setattr(headers, "KHEADERS", tmp_path / "none")
    monkeypatch.delenv(headers.VARIABLE, raising=False)
    with pytest.raises(
        UnavailableError, match=r"headers of kernel 9\.9\.9-none, and there are none"
    ):
        bpf.load_bcc(TEXT)


def test_nothing_of_bcc_is_imported_and_no_memory_is_lost(
    bpf: Loader, headers_here: str | None
) -> None:
    import psutil

    small = "int drop(struct xdp_md *ctx) { return XDP_DROP; }\n"
    bpf.load_bcc(small, headers=headers_here).close()
    before = psutil.Process().memory_info().rss
    for _ in range(3):
        bpf.load_bcc(small, headers=headers_here).close()
    assert psutil.Process().memory_info().rss - before < 3 * 450_000
    assert "bcc" not in sys.modules


@pytest.mark.parametrize(
    ("name", "argument", "section"),
    [
        ("kprobe__vfs_read", "struct pt_regs *ctx", "kprobe/vfs_read"),
        ("kretprobe__vfs_read", "struct pt_regs *ctx", "kretprobe/vfs_read"),
        ("tracepoint__sched__sched_switch", "void *a", "tracepoint/sched/sched_switch"),
        ("raw_tracepoint__sys_enter", "void *a", "raw_tracepoint/sys_enter"),
        ("kfunc__vmlinux__vfs_read", "void *a", "fentry/vfs_read"),
        ("kretfunc__vfs_read", "void *a", "fexit/vfs_read"),
        ("on_read", "struct pt_regs *ctx, int fd", "kprobe"),
        ("on_switch", "struct tracepoint__sched__sched_switch *a", "tracepoint/sched/sched_switch"),
        ("sample", "struct bpf_perf_event_data *ctx", "perf_event"),
        ("filter", "struct __sk_buff *skb", "tc"),
        ("any", "void *ctx", "kprobe"),
    ],
)
def test_what_a_function_is(name: str, argument: str, section: str) -> None:
    text = f"int {name}_not(struct xdp_md *ctx);\nint {name}({argument})\n{{ return 0; }}\n"
    assert sections([name], text, {}, "it.c") == {name: section}
    assert program_type(section)


def test_how_tables_are_laid_out() -> None:
    """As BCC describes them, where a table has no BTF: with its padding, and packed."""
    union = ["", [["addr", "unsigned long long"], ["b", "unsigned char", [8]]], "union"]
    inner = ["", [["x", "unsigned short"], ["y", "unsigned char"]], "struct"]
    members = [["big", "unsigned __int128"], ["__pad_1", "char", [4]], union, ["in", inner]]
    table = type_of(["key", [*members, ["mode", ["mode", ["READ"], "enum"]]], "struct_packed"])
    assert isinstance(table, Struct)
    places = {member.name: member.bit_offset // 8 for member in table.flat_members()}
    assert places == {"big": 0, "addr": 20, "b": 20, "in": 28, "mode": 32}
    assert table.size == 36
    assert type_of("struct unknown") is None
    assert type_of(["bits", [["a", "int", 3]], "struct"]) is None
    events = struct_of("event", ["wide#unsigned __int128", "mode#enum mode"])
    assert events
    assert events.size == 32


def test_how_events_are_laid_out() -> None:
    members = ["a#u8", "b#unsigned long long", "c#char[3]", "d#int [2]", "e#void *", "f#s16"]
    found = struct_of("event", members)
    assert found
    places = {member.name: (member.bit_offset // 8, member.type.size) for member in found.members}
    assert places == {
        "a": (0, 1),
        "b": (8, 8),
        "c": (16, 3),
        "d": (20, 8),
        "e": (32, 8),
        "f": (40, 2),
    }
    assert found.size == 48
    assert struct_of("event", []) is None
    assert struct_of("event", ["a#struct other"]) is None


def test_no_bcc_in_a_plain_session() -> None:
    code = "import sys, pytest_bpf.loader; assert not [m for m in sys.modules if 'bcc' in m]"
    subprocess.run([sys.executable, "-c", code], check=True)
