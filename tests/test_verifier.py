"""What the verifier says: its figures when it accepts, its reason and place when it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import LoadError, UnavailableError, UnknownNameError, VerifierError
from pytest_bpf.loader import Loader
from pytest_bpf.objects.elf import SourceLine
from pytest_bpf.objects.programs.verifier import location, reason, stats, with_reason

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Load

MAPS = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32);
         __type(value, __u64); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
"""

REJECTED = {
    "infinite loop": (
        (
            'SEC("xdp") int bad(void *ctx) {\n    volatile int i = 0;\n'
            "    for (;;) { i++; if (i == -5) break; } // here\n    return 0; }"
        ),
        "infinite loop detected at insn 2",
    ),
    "null value": (
        (
            'SEC("xdp") int bad(void *ctx) {\n    __u32 key = 0;\n'
            "    __u64 *v = bpf_map_lookup_elem(&table, &key);\n    return *v; // here\n}"
        ),
        "R0 invalid mem access 'map_value_or_null'",
    ),
    "packet bounds": (
        (
            'SEC("xdp") int bad(struct xdp_md *ctx) {\n    char *data = (void *)(long)ctx->data;\n'
            "    return data[5]; // here\n}"
        ),
        (
            "invalid access to packet, off=5 size=1, R1(id=0,off=5,r=0); "
            "R1 offset is outside of the packet"
        ),
    ),
    "unreleased reference": (
        (
            'SEC("xdp") int bad(void *ctx) {\n    if (!bpf_ringbuf_reserve(&ring, 16, 0))\n'
            "        return 1;\n    return 0;\n} // here"
        ),
        (
            "Unreleased reference id=2 alloc_insn=4; "
            "BPF_EXIT instruction in main prog would lead to reference leak"
        ),
    ),
    "uninitialised register": (
        (
            'SEC("xdp") int bad(void *ctx) {\n    asm volatile ("r3 = r9" ::: "r3"); // here\n'
            "    return 0; }"
        ),
        "R9 !read_ok",
    ),
    "context": (
        'SEC("xdp") int bad(char *ctx) {\n    return *(int *)(ctx + 100); // here\n}',
        "invalid bpf_context access off=100 size=4",
    ),
    "read-only context": (
        (
            'SEC("xdp") int bad(struct xdp_md *ctx) {\n    ctx->ingress_ifindex = 5; // here\n'
            "    return 0; }"
        ),
        "invalid bpf_context access off=12 size=4",
    ),
    "return value": (
        'SEC("cgroup/dev") int bad(void *ctx) {\n    return 5; // here\n}',
        "At program exit the register R0 has smin=5 smax=5 should have been in [0, 1]",
    ),
    "past the value": (
        (
            'SEC("xdp") int bad(void *ctx) {\n    __u32 key = 0;\n'
            "    __u64 *v = bpf_map_lookup_elem(&table, &key);\n    if (!v)\n        return 0;\n"
            "    return v[1]; // here\n}"
        ),
        (
            "invalid access to map value, value_size=8 off=8 size=8; "
            "R0 min value is outside of the allowed memory range"
        ),
    ),
    "wrong map": (
        (
            'SEC("xdp") int bad(void *ctx) {\n    __u32 key = 0;\n'
            "    return bpf_ringbuf_output(&table, &key, 4, 0); // here\n}"
        ),
        "cannot pass map_type 1 into func bpf_ringbuf_output#130",
    ),
    "wrong helper": (
        'SEC("xdp") int bad(void *ctx) {\n    return bpf_sk_assign(ctx, 0, 0); // here\n}',
        "program of this type cannot use helper bpf_sk_assign#124",
    ),
    "arbitrary pointer": (
        (
            'SEC("raw_tp") int bad(struct bpf_raw_tracepoint_args *ctx) {\n'
            "    return *(int *)ctx->args[0]; // here\n}"
        ),
        "R1 invalid mem access 'scalar'",
    ),
    "static function": (
        (
            "static __attribute__((noinline)) int part(__u64 *v) {\n    return *v; // here\n}\n"
            'SEC("xdp") int bad(void *ctx) {\n    __u32 key = 0;\n'
            "    return part(bpf_map_lookup_elem(&table, &key));\n}"
        ),
        "R1 invalid mem access 'map_value_or_null'",
    ),
    "global function": (
        (
            "__attribute__((noinline)) int part(__u64 *v) {\n    return *v; // here\n}\n"
            'SEC("xdp") int bad(void *ctx) {\n    __u64 key = 0;\n    return part(&key);\n}'
        ),
        "R1 invalid mem access 'mem_or_null'",
    ),
    "kernel memory": (
        (
            'SEC("tp_btf/sys_enter") int bad(void *ctx) {\n'
            "    struct task_struct *task = bpf_get_current_task_btf();\n"
            "    task->pid = 4; // here\n"
            "    return 0; }"
        ),
        "only read is supported",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_rejection_names_the_line_and_the_reason(case: str) -> None:
    body, why = REJECTED[case]
    text = (
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_core_read.h>\n'
        f'{MAPS}\nchar LICENSE[] SEC("license") = "GPL";\n{body}\n'
    )
    with Loader() as loader, pytest.raises(VerifierError) as caught:
        loader.load(text)
    error = caught.value
    assert error.program == "bad"
    assert error.reason.startswith(why)
    assert "state:" not in error.reason
    assert error.reason.partition(";")[0] in error.log
    assert len(str(error).splitlines()) <= 20
    if "// here" in text:
        number = next(n for n, line in enumerate(text.splitlines(), 1) if "// here" in line)
        assert error.location.endswith(f".bpf.c:{number}")
        first, *rest = str(error).splitlines()
        marked = next(line for line in rest if line.startswith(f"    > {number} | "))
        assert first == f"{error.location}: the verifier rejected program 'bad': {error.reason}"
        assert marked.endswith(text.splitlines()[number - 1].strip())


def test_paths_are_seen_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.bpf.c").write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
        'SEC("xdp") int bad(struct xdp_md *ctx) {\n  return *(char *)(long)ctx->data; }\n'
    )
    with Loader() as loader, pytest.raises(VerifierError, match=r"^bad\.bpf\.c:4: the verifier"):
        loader.load("bad.bpf.c")


LOOP = """
SEC("raw_tp") int loop(struct bpf_raw_tracepoint_args *ctx) {
    volatile char room[64]; int sum = 0;
    for (int i = 0; i < 100; i++) { room[i & 63] = i; if (ctx->args[0] > i) sum += room[i & 31]; }
    return sum; }
SEC("raw_tp") int plain(void *ctx) { return 1; }
"""


def test_figures_agree_with_the_kernel(load: Load) -> None:
    obj = load(LOOP)
    loop, plain = obj.programs["loop"], obj.programs["plain"]
    for program in (loop, plain):
        assert program.verifier.total_insns == program.info.verified_insns == program.verified_insns
    assert loop.verifier.total_insns > 500
    assert loop.verifier.total_states >= loop.verifier.peak_states > 1
    assert loop.verifier.stack_depth >= 64
    assert plain.verifier.stack_depth == 0
    assert (plain.verified_insns, plain.prog_size) == (2, 16)
    assert loop.prog_size > 100
    assert loop.prog_size_jited > loop.prog_size / 4
    assert len(loop.tag) == 16
    assert loop.tag != plain.tag
    assert load(LOOP + "int another;").programs["loop"].tag == loop.tag


def test_logs_on_demand(load: Load) -> None:
    obj = load(LOOP)
    program = obj.programs["loop"]
    log = program.verifier_log()
    assert "R1=ctx()" in log
    assert log.count("\n") > program.verifier.total_insns
    assert stats(log).total_insns == program.verifier.total_insns
    assert program.verifier_log(1).count("\n") < 10
    obj.close()
    assert "R1=ctx()" in program.verifier_log()


def test_only_the_programs_that_are_asked_for(load: Load) -> None:
    bad = LOOP + 'SEC("xdp") int bad(char *ctx) { return *(int *)(ctx + 100); }'
    with pytest.raises(VerifierError, match="rejected program 'bad'"):
        load(bad)
    for programs in (["loop"], "loop", {"loop"}):
        assert list(load(bad, programs=programs).programs) == ["loop"]
    assert list(load(bad, programs=[]).programs) == []
    with pytest.raises(UnknownNameError, match="has no program 'lopp'; did you mean 'loop'"):
        load(bad, programs=["lopp"])
    with pytest.raises(UnknownNameError, match="has no program 'bad'"):
        load(bad, programs=["loop"]).programs["bad"]


NOT_LOADED = {
    "section": (
        'SEC("xpd") int bad(void *c) { return 0; }',
        r"\(xpd\): its section says no program type .*did you mean 'xdp'\?.* types={'bad': ",
    ),
    "no hook": (
        'SEC("tp_btf/no_such") int bad(void *c) { return 0; }',
        "attaches to 'no_such', which this",
    ),
    "kfunc": (
        'extern int no_such(int) __ksym; SEC("xdp") int bad(void *c) { return no_such(1); }',
        r"cannot be loaded here: this kernel has no kfunc 'no_such'",
    ),
    "config": (
        'extern int CONFIG_NO_SUCH __kconfig; SEC("xdp") int b(void *c) { return CONFIG_NO_SUCH; }',
        r"cannot be loaded here: this kernel has no configuration option 'CONFIG_NO_SUCH'",
    ),
    "no entries": (
        MAPS.replace("max_entries, 8", "max_entries, 0"),
        r"map 'table' \(hash, max_entries 0, key_size 4, .*\) cannot be created: max_entries is 0",
    ),
    "unknown map": (MAPS.replace("BPF_MAP_TYPE_HASH", "999"), r"map 'table' \(999, max_entries 8"),
}


@pytest.mark.parametrize("case", NOT_LOADED)
def test_what_is_refused_before_the_verifier(load: Load, case: str) -> None:
    text, words = NOT_LOADED[case]
    with pytest.raises((LoadError, UnavailableError), match=words) as caught:
        load(text)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, VerifierError)


OLD_LOG = """\
0: R1=ctx(off=0,imm=0) R10=fp0
; return part(v);
5: (85) call pc+1
; return *v;
7: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 8 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1
"""


def test_of_lines_that_read_alike_the_printed_one_counts() -> None:
    known = [
        SourceLine("xdp", at, "a.c", line, "return 0;") for at, line in ((0, 5), (4, 9), (8, 12))
    ]
    assert location("; return 0; @ a.c:9\n3: exit\n", ("xdp", 0), known) == ("a.c:9", "return 0;")
    assert location("; lost @ b.c:9\n3: exit\n", ("xdp", 0), known) == ("b.c:9", "lost")


def test_logs_of_older_kernels_are_understood() -> None:
    """Before 6.10 the log quotes the text alone."""
    known = [
        SourceLine("xdp", 0, "a.c", 10, "return part(v);"),
        SourceLine(".text", 0, "a.c", 4, "return *v;"),
        SourceLine("xdp", 9, "a.c", 20, "return 7;"),
    ]
    assert location(OLD_LOG, ("xdp", 0), known) == ("a.c:4", "return *v;")
    assert reason(OLD_LOG) == "R1 invalid mem access 'scalar'"
    assert stats(OLD_LOG).total_insns == 8
    assert location("unreachable insn 9\n", ("xdp", 0), known) == ("a.c:20", "return 7;")
    assert location("unreachable insn 2\n", ("xdp", 8), known) == ("a.c:20", "return 7;")
    assert location("no line at all\n", ("xdp", 0), known) == ("", "")
    assert location("unreachable insn 0\n", ("xdp", 5), known) == ("", "")
    assert reason("") == ""


def test_a_log_that_was_cut_off_gets_its_end_back() -> None:
    """Kernels before 6.4 keep the first 16 MB of a log, and not the last."""
    cut = "0: (bf) r1 = r6                 ; R1_w=scalar(id=1) R6=scalar(id=1)\n8: ("
    short = (
        "BPF program is too large. Processed 1000001 insn\n"
        "processed 1000001 insns (limit 1000000) max_states_per_insn 4 total_states 9\n"
    )
    assert reason(with_reason(cut, short)) == short.splitlines()[0]
    whole = f"{cut.splitlines()[0]}\n{short}"
    assert with_reason(whole, short) == whole
