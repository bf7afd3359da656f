"""Another libbpf than the system's: by option, ini file and environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.loader import Loader

pytest_plugins = ["pytester"]

VERSION = """
from pytest_bpf.kernel.sys import libbpf

def test_version(bpf):
    bpf.load('''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("tcx/ingress") int pass(struct __sk_buff *skb) { return -1; }
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
''')
    assert libbpf.version() == {version!r}
"""


_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))

NEWER = _CACHE / "pytest-bpf-ci/linux-source-6.12/libbpf.so.1"
"""A libbpf 1.5 (see .ci/libbpf, which .ci/setup runs)."""


@pytest.fixture(scope="session")
def newer() -> Path:
    if not NEWER.exists():
        pytest.skip(f"there is no newer libbpf at {NEWER}: .ci/setup builds it")
    return NEWER


@pytest.mark.parametrize("way", ["option", "folder", "ini", "environment"])
def test_a_newer_libbpf_is_used(
    way: str, newer: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(VERSION.replace("{version!r}", "'1.5'"))
    arguments = {"option": [f"--bpf-libbpf={newer}"], "folder": [f"--bpf-libbpf={newer.parent}"]}
    if way == "ini":
        pytester.makeini(f"[pytest]\nbpf_libbpf = {newer}\n")
    if way == "environment":
        monkeypatch.setenv("PYTEST_BPF_LIBBPF", str(newer))
    result = pytester.runpytest_subprocess(*arguments.get(way, []))
    result.assert_outcomes(passed=1)


def test_without_a_choice_it_is_the_systems(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(VERSION.replace("{version!r}", repr(libbpf.version())))
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.so", "cannot be loaded"),
        ("libc.so.6", "libc.so.6 is no libbpf"),
        (".", "libbpf.so.1"),
    ],
)
@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_libbpf_that_cannot_be_had_is_a_usage_error(
    way: str,
    name: str,
    message: str,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytester.makepyfile("def test(bpf): pass")
    libc = subprocess.run(["ldd", sys.executable], capture_output=True, text=True, check=True)
    place = next(word for word in libc.stdout.split() if word.endswith("/libc.so.6"))
    path = place if name.startswith("libc") else name
    if way == "environment":
        monkeypatch.setenv("PYTEST_BPF_LIBBPF", path)
    result = pytester.runpytest_subprocess(
        *([] if way == "environment" else [f"--bpf-libbpf={path}"])
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    option = "PYTEST_BPF_LIBBPF" if way == "environment" else "--bpf-libbpf"
    result.stderr.fnmatch_lines([f"*{option}: *{message}*"])


NEWER_PARTS = {
    "struct_ops": """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
SEC("struct_ops/slow") __u32 BPF_PROG(slow, struct sock *sk) { return 2; }
SEC("struct_ops/undo") __u32 BPF_PROG(undo, struct sock *sk) { return 2; }
SEC("struct_ops/avoid") void BPF_PROG(avoid, struct sock *sk, __u32 ack, __u32 acked) { }
SEC(".struct_ops.link") struct tcp_congestion_ops mine = { .ssthresh = (void *)slow,
    .cong_avoid = (void *)avoid, .undo_cwnd = (void *)undo, .name = "bpf_link_test" };
""",
    "arena": """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
#define __arena __attribute__((address_space(1)))
struct { __uint(type, BPF_MAP_TYPE_ARENA); __uint(map_flags, BPF_F_MMAPABLE);
         __uint(max_entries, 4); } pages SEC(".maps");
extern void __arena *bpf_arena_alloc_pages(void *map, void __arena *addr, __u32 count, int node,
                                           __u64 flags) __ksym;
SEC("syscall") int run(void *ctx) {
    int __arena *number = bpf_arena_alloc_pages(&pages, (void __arena *)0, 1, -1, 0);
    if (!number)
        return 1;
    *number = 42;
    return *number;
}
""",
}
"""What older libbpfs open and cannot load. Arenas are for clang 19 and newer."""

RUN_NEWER_PARTS = f"""
import pytest

PARTS = {NEWER_PARTS!r}

def test_struct_ops(bpf):
    obj = bpf.load(PARTS["struct_ops"], name="ops")
    obj.attach()
    with open("/proc/sys/net/ipv4/tcp_available_congestion_control") as file:
        assert "bpf_link_test" in file.read()

@pytest.mark.bpf_requires(map_type="arena")
def test_arena(bpf):
    obj = bpf.load(PARTS["arena"], name="arena", compiler="zig")
    assert obj.programs["run"].test_run().retval == 42
    assert repr(obj.maps["pages"]) == "<Map pages (arena, max_entries 4)>"
"""


def test_what_a_newer_libbpf_takes_is_loaded_by_it(newer: Path, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(RUN_NEWER_PARTS)
    result = pytester.runpytest_subprocess(f"--bpf-libbpf={newer}", "-rs")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("part", NEWER_PARTS)
def test_what_takes_a_newer_libbpf_says_so(part: str) -> None:
    if libbpf.has("bpf_token_create"):
        pytest.skip(f"libbpf {libbpf.version()} takes it")
    with Loader() as bpf, pytest.raises(UnavailableError, match=r"takes libbpf 1\.[24] or newer"):
        bpf.load(NEWER_PARTS[part], name=part, compiler="zig")


class Interrupting(list[str]):
    """What libbpf's messages go to; with the first one Ctrl-C comes."""

    def append(self, line: str) -> None:
        if not self:
            os.kill(os.getpid(), signal.SIGINT)
        super().append(line)


def test_an_interrupt_while_libbpf_logs_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    lines = Interrupting()
    monkeypatch.setattr(libbpf._messages, "lines", lines, raising=False)
    try:
        with pytest.raises(KeyboardInterrupt):
            libbpf.call("bpf_object__open_mem", b"no ELF", 6, None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(lines) >= 1


@pytest.mark.parametrize("way", ["option", "environment"])
def test_workers_use_what_was_chosen(
    way: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        "from pytest_bpf.kernel.sys import libbpf\n"
        "from pytest_bpf.cache import chosen_folder\n"
        "def test_it(): raise SystemError(f'{libbpf.path()} {chosen_folder()}')"
    )
    from pytest_bpf.kernel.sys import libbpf

    libbpf.library()
    maps = Path("/proc/self/maps").read_text().splitlines()
    library = next(line.split()[-1] for line in maps if "/libbpf" in line)
    words = [f"--bpf-libbpf={library}", "--bpf-cache-dir=mine"]
    if way == "environment":
        words = []
        monkeypatch.setenv("PYTEST_BPF_LIBBPF", library)
        monkeypatch.setenv("PYTEST_BPF_CACHE", str(pytester.path / "mine"))
    result = pytester.runpytest_subprocess("-n1", *words)
    result.stdout.fnmatch_lines([f"*SystemError: {library} {pytester.path / 'mine'}*"])
