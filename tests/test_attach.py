"""Attaching to the kernel and to processes: each program runs when attached, and not after."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import pytest

from pytest_bpf.errors import AttachError, LoadError, UnavailableError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.netns import Namespace, pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects import Object
    from tests.conftest import Load

COUNT = "const volatile int only = 0; __u64 hits;\n"
MINE = "if (bpf_get_current_pid_tgid() >> 32 != only) return 0; __sync_fetch_and_add(&hits, 1);"


def counting(section: str, context: str = "void *ctx") -> str:
    return f'{COUNT} SEC("{section}") int count({context}) {{ {MINE} return 0; }}\n'


def loaded(load: Load, text: str) -> Object:
    return load(text, globals={"only": os.getpid()})


def proven(obj: Object, act: Callable[[], object], *target: Any, **options: Any) -> int:
    """Attach, act, detach, act again; return how often the program ran in all."""
    link = obj.programs["count"].attach(*target, **options)
    assert link.attached
    act()
    seen = int(obj.globals["hits"])
    assert seen > 0
    link.detach()
    link.detach()
    assert not link.attached
    after = int(obj.globals["hits"])
    act()
    assert obj.globals["hits"] == after
    return seen


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("tracepoint/syscalls/sys_enter_getppid", None),
        ("tracepoint", "syscalls:sys_enter_getppid"),
        ("tp", "syscalls/sys_enter_getppid"),
    ],
)
def test_tracepoints(load: Load, section: str, target: str | None) -> None:
    assert proven(loaded(load, counting(section)), os.getppid, target) == 1


@pytest.mark.parametrize(
    ("section", "target"),
    [("raw_tp/sys_enter", None), ("raw_tp", "sys_enter"), ("tp_btf/sys_enter", None)],
)
def test_raw_tracepoints(load: Load, section: str, target: str | None) -> None:
    obj = loaded(load, counting(section))
    proven(obj, os.getppid, target)
    assert obj.programs["count"].auto_attachable == (target is None)


def python_binary() -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libpython" in line and " r-xp " in line:
            return line.split()[-1]
    return os.path.realpath(sys.executable)


@pytest.mark.parametrize("kind", ["uprobe", "uretprobe"])
def test_uprobes(load: Load, kind: str) -> None:
    """In this very Python: ``os.getpid()`` calls PyLong_FromLong."""
    obj = loaded(load, counting(kind))
    where: dict[str, Any] = {"binary": python_binary(), "function": "PyLong_FromLong"}
    where["pid"] = os.getpid()
    proven(obj, os.getpid, **where)
    everywhere = obj.programs["count"].attach(**{**where, "pid": -1})
    assert "PyLong_FromLong" in everywhere.target
    everywhere.detach()
    for wrong, words in (
        ({"function": "no_such_function"}, "no_such_function"),
        ({"binary": "/no/such/file"}, "ENOENT: No such file or directory"),
    ):
        with pytest.raises(AttachError, match=words):
            obj.programs["count"].attach(**{**where, **wrong})
    with pytest.raises(
        AttachError, match="its section does not say where, pass binary=, function="
    ):
        obj.programs["count"].attach()


USDT = """
#include <unistd.h>
unsigned short armed __attribute__((section(".probes"), used));
static void fire(long n) {
    __asm__ volatile ("990: nop\\n"
        ".pushsection .note.stapsdt,\\"?\\",\\"note\\"\\n.balign 4\\n"
        ".4byte 992f-991f, 994f-993f, 3\\n991: .asciz \\"stapsdt\\"\\n992: .balign 4\\n"
        "993: .8byte 990b\\n.8byte _.stapsdt.base\\n.8byte armed\\n"
        ".asciz \\"demo\\"\\n.asciz \\"fired\\"\\n.asciz \\"-8@%0\\"\\n"
        "994: .balign 4\\n.popsection\\n"
        ".pushsection .stapsdt.base,\\"aG\\",\\"progbits\\",.stapsdt.base,comdat\\n"
        ".weak _.stapsdt.base\\n.hidden _.stapsdt.base\\n_.stapsdt.base: .space 1\\n"
        ".size _.stapsdt.base, 1\\n.popsection\\n" :: "r"(n));
}
int main(void) {
    char c;
    while (read(0, &c, 1) == 1) { fire(c); write(1, armed ? &c : "-", 1); }
    return 0; }
"""
USDT_COUNT = """
#include <bpf/usdt.bpf.h>
__u64 hits; long last;
SEC("usdt") int count(struct pt_regs *ctx) { hits++; bpf_usdt_arg(ctx, 0, &last); return 0; }
"""


def test_usdt(load: Load, tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if not gcc or os.uname().machine != "x86_64":
        pytest.skip("no gcc for a binary with a USDT probe")
    binary = tmp_path / "demo"
    command = [gcc, "-x", "c", "-w", "-o", str(binary), "-"]
    subprocess.run(command, input=USDT, text=True, check=True)
    obj = load(USDT_COUNT)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen([binary], **pipes) as child:
        pipe_in, pipe_out = cast("IO[bytes]", child.stdin), cast("IO[bytes]", child.stdout)

        def fire() -> bytes:
            pipe_in.write(b"x")
            return pipe_out.read(1)

        assert fire() == b"-"  # the semaphore says that nobody listens
        where: dict[str, Any] = {"binary": binary, "provider": "demo", "function": "fired"}
        where["pid"] = child.pid
        assert proven(obj, fire, **where) == 1
        assert obj.globals["last"] == ord("x")
        with obj.programs["count"].attach(**where) as link:
            assert fire() == b"x"
            assert (link.fd, link.attached) == (-1, True)
            with pytest.raises(
                AttachError, match="has no info: it is not one bpf_link of the kern"
            ):
                _ = link.info
        assert fire() == b"-"
        with pytest.raises(AttachError, match="no probe 'demo:fierd'; did you mean 'demo:fired'"):
            obj.programs["count"].attach(binary=binary, provider="demo", function="fierd")
        plain = shutil.which("true") or ""
        with pytest.raises(AttachError, match="no probe 'demo:fired'; it has no USDT probes"):
            obj.programs["count"].attach(binary=plain, provider="demo", function="fired")
        pipe_in.close()


def burn() -> None:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass


def test_perf_events_of_a_process(load: Load) -> None:
    assert proven(loaded(load, counting("perf_event")), burn, pid=os.getpid(), frequency=1000) > 10


def test_perf_events_of_all_cpus_end_together(load: Load) -> None:
    obj = loaded(load, counting("perf_event"))
    before = os.sched_getaffinity(0)

    def burn_on_each() -> None:
        for cpu in before:
            seen = obj.globals["hits"]
            os.sched_setaffinity(0, {cpu})
            burn()
            assert not obj.links["count"].attached or obj.globals["hits"] > seen

    try:
        proven(obj, burn_on_each, frequency=1000)
    finally:
        os.sched_setaffinity(0, before)
    assert len(obj.links) == 1
    assert not obj.programs["count"].auto_attachable


def test_an_iterator_over_tasks(load: Load) -> None:
    obj = loaded(
        load,
        COUNT + 'SEC("iter/task") int count(struct bpf_iter__task *ctx) {'
        "struct task_struct *task = ctx->task; if (!task || task->pid != only) return 0;"
        'hits++; BPF_SEQ_PRINTF(ctx->meta->seq, "%d %s\\n", task->tgid, task->comm); return 0; }',
    )
    link = obj.programs["count"].attach()
    assert link.read().startswith(f"{os.getpid()} ")
    assert link.read().count("\n") == 1
    assert obj.globals["hits"] == 2
    assert link.id > 0


def test_an_iterator_over_a_map(load: Load) -> None:
    obj = load("""
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32);
         __type(value, __u64); } of SEC(".maps");
SEC("iter/bpf_map_elem") int each(struct bpf_iter__bpf_map_elem *ctx) {
    __u32 *key = ctx->key; __u64 *value = ctx->value;
    if (key && value) BPF_SEQ_PRINTF(ctx->meta->seq, "%u=%llu ", *key, *value);
    return 0; }
""")
    obj.maps["of"].update({1: 10, 2: 20})
    with obj.programs["each"].attach(obj.maps["of"]) as link:
        assert sorted(link.read().split()) == ["1=10", "2=20"]
    with pytest.raises(AttachError, match="an iterator over a map takes a map, not None"):
        obj.programs["each"].attach()
    with pytest.raises(AttachError, match="an iterator over a map takes a map, not 5"):
        obj.programs["each"].attach(5)


CONGESTION = """
__u64 hits;
SEC("struct_ops/init") void BPF_PROG(init, struct sock *sk) { hits++; }
SEC("struct_ops/ssthresh") __u32 BPF_PROG(ssthresh, struct sock *sk) { return 10; }
SEC("struct_ops/avoid") void BPF_PROG(avoid, struct sock *sk, __u32 ack, __u32 acked) { }
SEC("struct_ops/undo") __u32 BPF_PROG(undo, struct sock *sk) { return 10; }
SEC(".struct_ops") struct tcp_congestion_ops mine = {
    .init = (void *)init, .ssthresh = (void *)ssthresh, .cong_avoid = (void *)avoid,
    .undo_cwnd = (void *)undo, .name = "pytest_bpf_cc" };
"""


def test_struct_ops_are_left_out_with_their_functions(load: Load) -> None:
    """Without them libbpf before 1.4 crashes."""
    obj = load(CONGESTION + 'SEC("xdp") int pass(void *ctx) { return 2; }', programs=["pass"])
    assert list(obj.programs) == ["pass"]
    assert "mine" not in obj.maps
    assert obj.programs["pass"].verifier_log()
    bare = 'SEC(".struct_ops") struct tcp_congestion_ops mine = { .name = "bare" };'
    if tuple(map(int, libbpf.version().split("."))) < (1, 4):
        with pytest.raises(LoadError, match=r"map 'mine' .struct_ops. has none of its"):
            load(bare)


def test_struct_ops(load: Load) -> None:
    if not features.attach("struct_ops"):
        pytest.skip("no struct_ops")
    obj = load(CONGESTION)
    option = (socket.IPPROTO_TCP, socket.TCP_CONGESTION)
    with Namespace() as namespace, namespace.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def connect() -> None:
            with namespace.socket() as client:
                client.setsockopt(*option, b"pytest_bpf_cc")
                client.connect(server.getsockname())

        with pytest.raises(FileNotFoundError):
            connect()
        obj.attach("mine")
        connect()
        assert obj.globals["hits"] == 1
        obj.links["mine"].detach()
        with pytest.raises(FileNotFoundError):
            connect()


def test_a_program_replaces_a_function_of_another(load: Load) -> None:
    target = load(
        "__attribute__((noinline)) int part(struct xdp_md *c) { volatile int r = 1; return r; }"
        'SEC("xdp") int whole(struct xdp_md *c) { return part(c); }'
    ).programs["whole"]
    replacing = 'SEC("freplace/part") int count(struct xdp_md *c) { return 7; }'
    assert target.test_run(bytes(64)).retval == 1
    with pytest.raises(LoadError, match=r"pass attach_to=\{'count': \(program, 'function'\)\}"):
        load(replacing)
    with pytest.raises(LoadError, match="cannot attach to function 'prat' of program 'whole'"):
        load(replacing, attach_to={"count": (target, "prat")})
    if not features.program_type("ext"):
        with pytest.raises(UnavailableError, match=r"'count' .* cannot be loaded here"):
            load(replacing, attach_to={"count": (target, "part")})
        return
    obj = load(replacing, attach_to={"count": (target, "part")})
    with obj.programs["count"].attach():
        assert target.test_run(bytes(64)).retval == 7
    assert target.test_run(bytes(64)).retval == 1


@pytest.mark.parametrize("section", ["kprobe/vfs_read", "kretprobe/vfs_read", "fentry/vfs_read",
                                     "fexit/vfs_read", "lsm/file_open"])  # fmt: skip
def test_what_this_kernel_may_lack(load: Load, section: str) -> None:
    """Where it is there it runs; where it is not, one sentence says so, and a test is skipped."""
    kind = section.partition("/")[0]
    if features.attach(kind):
        with Path("/dev/null").open() as file:
            proven(loaded(load, counting(section)), file.read)
        return
    with pytest.raises(
        UnavailableError, match=re.escape(f"program 'count' ({section})")
    ) as refused:
        loaded(load, counting(section)).programs["count"].attach()
    assert str(refused.value).endswith(features.attach(kind).reason)
    assert "\n" not in str(refused.value)


def test_an_iterator_over_sockets_runs_in_a_namespace(load: Load) -> None:
    obj = load("""
SEC("iter/udp") int each(struct bpf_iter__udp *ctx) {
    struct udp_sock *socket = ctx->udp_sk;
    if (socket) BPF_SEQ_PRINTF(ctx->meta->seq, "%d ", socket->inet.sk.__sk_common.skc_num);
    return 0; }
""")
    with pair() as (left, right), right.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 4242))
        link = obj.programs["each"].attach(netns=right)
        assert link.read().split() == ["4242"]
        assert link.read(netns=left) == ""
        assert obj.programs["each"].attach().read(netns=right).split() == ["4242"]
        with pytest.raises(AttachError, match="netns= is a Namespace, not right"):
            obj.programs["each"].attach(netns="right")
        with pytest.raises(AttachError, match="is read in a Namespace, not in 5"):
            link.read(netns=5)


MULTI = """
__u64 hits, cookie, entered, left;
extern bool bpf_session_is_return(void) __ksym __weak;
extern __u64 *bpf_session_cookie(void) __ksym __weak;
SEC("kprobe.multi/*_sys_getppi?") int count(struct pt_regs *ctx) {
    cookie = bpf_get_attach_cookie(ctx); hits++; return 0; }
SEC("kprobe.session/*_sys_getppi?") int session(struct pt_regs *ctx) {
    __u64 *kept = bpf_session_cookie();
    if (bpf_session_is_return()) left += *kept; else { entered++; *kept = 41; }
    return 0; }
"""


@pytest.mark.skipif(not features.attach("kprobe_multi"), reason="this kernel has no kprobe_multi")
def test_many_functions_of_the_kernel(load: Load) -> None:
    program = load(MULTI, programs=["count"]).programs["count"]
    for pattern, words in (
        ("no_such_function*", "no function of this kernel that can be probed matches 'no_such_f"),
        ("no_such_function", "ESRCH.*the kernel has no such function, or none that can be probed"),
    ):
        with pytest.raises(AttachError, match=words):
            program.attach(pattern)
    obj = load(MULTI, programs=["count"])
    with obj.programs["count"].attach(cookie=77) as link:
        os.getppid()
        assert link.info.type == "kprobe_multi"
    assert obj.globals["hits"] > 0
    assert obj.globals["cookie"] == 77
    hits = obj.globals["hits"]
    os.getppid()
    assert obj.globals["hits"] == hits


@pytest.mark.skipif(not features.kfunc("bpf_session_cookie"), reason="this kernel has no sessions")
def test_a_session_keeps_a_value_from_the_entry_to_the_return(load: Load) -> None:
    if not features.attach("kprobe_multi"):
        pytest.skip("this kernel has no kprobe_multi")
    obj = load(MULTI, programs=["session"])
    with obj.programs["session"].attach():
        os.getppid()
    assert obj.globals["entered"] > 0
    assert obj.globals["left"] == 41 * obj.globals["entered"]
