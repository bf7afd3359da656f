"""Each row of the catalogue of refusals, by a real program that the real kernel refuses for it."""

from __future__ import annotations

import ctypes
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_bpf.errors import LoadError, UnavailableError, VerifierError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.features.privilege import CAPABILITIES, privilege
from pytest_bpf.loader import Loader
from pytest_bpf.objects.programs.explanations import EXPLANATIONS, explanation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
    __type(key, __u32); __type(value, char[64]); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4);
    __type(key, __u32); __type(value, __u64); } hash SEC(".maps");
struct locked { struct bpf_spin_lock lock; int n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
    __type(key, __u32); __type(value, struct locked); } locks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
const volatile int constant = 1;
__u32 place;
long total;
"""

GPL = 'char _license[] SEC("license") = "GPL";\n'

UNPRIVILEGED = "unprivileged"

PROGRAMS = {
    "unchecked look-up": """
SEC("tc") int p(struct __sk_buff *skb) {
    __u32 key = 0;
    __u64 *value = bpf_map_lookup_elem(&hash, &key);
    return *value; //!
}""",
    "packet bounds": """
SEC("xdp") int p(struct xdp_md *ctx) {
    unsigned char *data = (void *)(long)ctx->data;
    return data[12]; //!
}""",
    "bounds check": """
SEC("tc") int p(struct __sk_buff *skb) {
    __u32 key = 0, at = place & 127;
    char *value = bpf_map_lookup_elem(&table, &key);
    if (!value) return 0;
    return value[at]; //!
}""",
    "unbounded pointer arithmetic": """
SEC("tc") int p(struct __sk_buff *skb) {
    __u32 key = 0;
    long at = total;
    char *value = bpf_map_lookup_elem(&table, &key);
    if (!value) return 0;
    return value[at]; //!
}""",
    "endless loop": """
SEC("tc") int p(struct __sk_buff *skb) {
    volatile int n = 0;
    while (!n) //!
        ;
    return 0;
}""",
    "too complex": """
SEC("tc") int p(struct __sk_buff *skb) {
    for (int i = 0; i < 1000000; i++)
        total += skb->len ^ i;
    return 0;
}""",
    "unreleased reference": """
SEC("tc") int p(struct __sk_buff *skb) {
    long *event = bpf_ringbuf_reserve(&ring, 8, 0);
    if (!event) return 0;
    return 1;
}""",
    "license": """
SEC("tc") int p(struct __sk_buff *skb) {
    return bpf_ktime_get_coarse_ns() + bpf_skb_ecn_set_ce(skb) + bpf_trace_printk("x", 2); //!
}""",
    "stack size": """
static __attribute__((noinline)) int fill(int n) {
    volatile char room[400] = {};
    room[n & 127] = n;
    return room[0];
}
SEC("tc") int p(struct __sk_buff *skb) {
    volatile char room[300] = {};
    room[skb->len & 127] = 1;
    return fill(skb->len) + room[5];
}""",
    "helper not for this program": """
SEC("xdp") int p(struct xdp_md *ctx) {
    return bpf_skb_pull_data((void *)ctx, 5); //!
}""",
    "kfunc not for this program": """
extern int bpf_sock_destroy(struct sock_common *sock) __ksym;
SEC("xdp") int p(struct xdp_md *ctx) {
    return bpf_sock_destroy(0); //!
}""",
    "uninitialised": """
SEC("tc") __attribute__((naked)) int p(void) {
    asm volatile("r0 = r2; exit");
}""",
    "return value": """
SEC("cgroup_skb/egress") int p(struct __sk_buff *skb) {
    return 17;
}""",
    "context member": """
SEC("xdp") int p(struct xdp_md *ctx) {
    return *((volatile int *)ctx + 50); //!
}""",
    "kernel pointer": """
SEC("raw_tp/sys_enter") int p(void *ctx) {
    struct task_struct *task = (void *)bpf_get_current_task();
    return task->pid; //!
}""",
    "read-only": """
SEC("tc") int p(struct __sk_buff *skb) {
    *(volatile int *)&constant = 3; //!
    return 0;
}""",
    "spin lock": """
SEC("tc") int p(struct __sk_buff *skb) {
    __u32 key = 0;
    struct locked *value = bpf_map_lookup_elem(&locks, &key);
    if (!value) return 0;
    bpf_spin_lock(&value->lock);
    total = bpf_ktime_get_ns(); //!
    bpf_spin_unlock(&value->lock);
    return 0;
}""",
    "wrong kind of argument": """
SEC("tc") int p(struct __sk_buff *skb) {
    return bpf_skb_load_bytes(skb, 0, (void *)(long)skb->len, 8); //!
}""",
    "sleeping": """
SEC("raw_tp/sys_enter") int p(void *ctx) {
    char name[8];
    return bpf_copy_from_user(name, 8, (void *)5);
}""",
    "no return value": """
SEC("tc") __attribute__((naked)) int p(void) {
    asm volatile("exit");
}""",
    "unreachable code": """
SEC("tc") __attribute__((naked)) int p(void) {
    asm volatile("r0 = 0; exit; r0 = 1; exit");
}""",
}


def refused(text: str, name: str) -> VerifierError:
    with Loader() as bpf, pytest.raises(VerifierError) as caught:
        bpf.load(text, name=name)
    return caught.value


@pytest.mark.parametrize("name", [row.name for row in EXPLANATIONS if row.name != UNPRIVILEGED])
def test_a_refusal_is_explained(name: str) -> None:
    text = HEAD + PROGRAMS[name] + "\n" + ("" if name == "license" else GPL)
    error = refused(text, "refused")
    row = explanation(error.reason)
    assert row is not None, error.reason
    assert row.name == name, error.reason
    assert row.meaning in str(error)
    assert row.remedy in str(error)
    marks = [n for n, line in enumerate(text.splitlines(), 1) if line.endswith("//!")]
    for number in marks:
        assert error.location.endswith(f":{number}")
        before = [line for line in str(error).splitlines() if f"{number - 1} | " in line]
        assert before[0].endswith(text.splitlines()[number - 2])


def test_a_trap_of_the_compiler_is_unreachable_code() -> None:
    """Newer compilers end a function so that does not return, as one that is called abort."""
    row = explanation("unexpected __bpf_trap() due to uninitialized variable?")  # of Linux 6.17
    assert row is not None
    assert row.name == "unreachable code"
    assert "abort" in row.remedy


def test_where_a_reference_was_acquired() -> None:
    error = refused(HEAD + PROGRAMS["unreleased reference"] + "\n" + GPL, "leaky")
    assert "long *event = bpf_ringbuf_reserve(&ring, 8, 0);" in str(error).split("acquired at ")[1]


def test_which_lines_took_the_most_states() -> None:
    error = refused(HEAD + PROGRAMS["too complex"] + "\n" + GPL, "complex")
    busiest = str(error).split("instructions looked at for ")[1].splitlines()[0]
    assert "total += skb->len ^ i;" in busiest or "for (int i = 0" in busiest


def test_without_its_source_the_line_alone_is_shown(tmp_path: Path) -> None:
    source = tmp_path / "gone.bpf.c"
    source.write_text(HEAD + PROGRAMS["unchecked look-up"] + "\n" + GPL)
    with Loader() as bpf:
        object_file = bpf.compile(source).object
        source.unlink()
        with pytest.raises(VerifierError, match=r"\n    return \*value; //!\n"):
            bpf.load(object_file)


LACKING = {
    "kfunc 'bpf_task_acquired'": """
extern struct task_struct *bpf_task_acquired(struct task_struct *p) __ksym;
SEC("tp_btf/sys_enter") int p(void *ctx) { return bpf_task_acquired(0) != 0; }""",
    "kfunc that this kernel does not have: bpf_task_acquired": """
extern struct task_struct *bpf_task_acquired(struct task_struct *p) __ksym __weak;
SEC("tp_btf/sys_enter") int p(void *ctx) { return bpf_task_acquired(0) != 0; }""",
    "variable 'runqueuez'": """
extern const int runqueuez __ksym;
SEC("tp_btf/sys_enter") int p(void *ctx) { return (long)&runqueuez; }""",
    "struct task_struct.no_such_member": """
struct task_struct___mine { int no_such_member; } __attribute__((preserve_access_index));
SEC("raw_tp/sys_enter") int p(void *ctx) {
    struct task_struct___mine *task = (void *)bpf_get_current_task();
    return BPF_CORE_READ(task, no_such_member);
}""",
    "enum no_such_enum::NO_SUCH": """
enum no_such_enum { NO_SUCH = 3 };
SEC("raw_tp/sys_enter") int p(void *ctx) {
    return bpf_core_enum_value(enum no_such_enum, NO_SUCH);
}""",
    "option 'CONFIG_NO_SUCH'": """
extern int CONFIG_NO_SUCH __kconfig;
SEC("raw_tp/sys_enter") int p(void *ctx) { return CONFIG_NO_SUCH; }""",
    "helper with the number 9999": """
static long (*newest)(void) = (void *)9999;
SEC("raw_tp/sys_enter") int p(void *ctx) { return newest(); }""",
}


@pytest.mark.parametrize("name", LACKING)
def test_what_the_kernel_lacks_is_unavailable_and_named(name: str) -> None:
    with Loader() as bpf, pytest.raises(UnavailableError) as caught:
        bpf.load(HEAD + LACKING[name] + "\n" + GPL, name="lacking")
    assert name in str(caught.value)


def test_a_weak_kfunc_that_is_not_called_is_no_matter() -> None:
    text = """
extern struct task_struct *bpf_task_acquired(struct task_struct *p) __ksym __weak;
SEC("tp_btf/sys_enter") int p(void *ctx) {
    return bpf_task_acquired ? bpf_task_acquired(0) != 0 : 0;
}
"""
    with Loader() as bpf:
        bpf.load(HEAD + text + GPL, name="guarded")


LEAK = """
SEC("socket") __attribute__((naked)) int p(void) {
    asm volatile("r0 = r1; exit");
}
"""


def test_without_privilege_the_log_is_the_cause() -> None:
    with Loader() as bpf:
        object_file = bpf.compile(HEAD.partition("struct {")[0] + LEAK + GPL, name="leak").object

        def load() -> str:
            assert privilege() is not None
            with pytest.raises(VerifierError) as caught:
                bpf.load(object_file)
            return caught.value.reason

        row = explanation(with_capabilities(["CAP_BPF"], load))
    assert row is not None
    assert row.name == UNPRIVILEGED


def test_capabilities_that_change_are_seen() -> None:
    assert privilege() is None
    assert features.program_type("xdp")
    missing = with_capabilities([], privilege)
    assert missing is not None
    assert "CAP_BPF" in missing
    assert not with_capabilities([], lambda: features.program_type("xdp"))
    assert features.program_type("xdp")
    assert privilege() is None


def test_a_load_without_privilege_is_unavailable_also_in_mid_session() -> None:
    with Loader() as bpf:
        object_file = bpf.compile(HEAD + PROGRAMS["unchecked look-up"] + GPL, name="late").object

        def load() -> None:
            with pytest.raises(UnavailableError, match="CAP_BPF"):
                bpf.load(object_file)

        with_capabilities([], load)


def with_capabilities(names: list[str], function: Callable[[], T]) -> T:
    """Call a function in a thread that has these capabilities alone."""

    def call() -> T:
        bits = sum(1 << CAPABILITIES[name] for name in names)
        header = struct.pack("=II", 0x20080522, 0)
        data = struct.pack("=6I", *((bits & 0xFFFFFFFF,) * 3), *((bits >> 32,) * 3))
        assert ctypes.CDLL(None).capset(header, data) == 0
        return function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


MISTAKES = {
    "misspelt section": ('SEC("xpd") int p(void *ctx) { return 0; }', "did you mean 'xdp'"),
    "no section": ("int p(void *ctx) { return 0; }", r"function 'p' has no SEC\(\)"),
    "misspelt tracepoint": (
        'SEC("tp_btf/sys_entr") int p(void *ctx) { return 0; }',
        "'p' attaches to 'sys_entr', which this kernel does not have; did you mean 'sys_enter'",
    ),
    "misspelt function": (
        'SEC("fentry/vfs_raed") int p(void *ctx) { return 0; }',
        "'vfs_raed', which this kernel does not have; did you mean 'vfs_read",
    ),
    "undeclared": (
        'SEC("xdp") int p(void *ctx) { return bpf_htons(4); }',
        "'bpf_htons' is used, and nothing .* defines it; .* by <bpf/bpf_endian.h>",
    ),
}


@pytest.mark.filterwarnings("ignore::pytest_bpf.errors.CompilerWarning")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_an_error_and_not_a_skip(name: str) -> None:
    text, words = MISTAKES[name]
    flags = ["-Wno-error=implicit-function-declaration"]
    with Loader() as bpf, pytest.raises(LoadError, match=words):
        bpf.load(HEAD.partition("struct {")[0] + text + "\n" + GPL, name="wrong", cflags=flags)
