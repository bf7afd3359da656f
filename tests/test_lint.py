"""The lint rules: each finds the program that breaks it, and none that does not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import bpf_examples
from docs import lint_rules
from pytest_bpf.errors import UnknownNameError
from pytest_bpf.lint import RULES, LintFinding, LintOptions, lint
from pytest_bpf.lint.ranking import MeasuredLines, ranked
from pytest_bpf.loader import Loader
from pytest_bpf.reports.lint import FORMATS
from tests.conftest import HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

from pathlib import Path

SUITES = Path(bpf_examples.__file__).parent
ALL = LintOptions(select=("all",))

MAPS = """
struct value { __u64 a, b; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, __u32);
         __type(value, struct value); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, __u64); } percpu SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u64); } shared SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct event { __u32 pid; __u64 time; };
"""


def names(source: str, settings: LintOptions = ALL) -> list[str]:
    with Loader() as bpf:
        return [finding.rule for finding in lint(bpf.open(HEADER + MAPS + source), "x", settings)]


def program(body: str) -> str:
    return f'SEC("tp_btf/sys_enter") int p(__u64 *ctx) {{ {body} return 0; }}'


BROKEN = {
    "repeated-lookup": """__u32 k = bpf_get_smp_processor_id(); struct value *v;
        v = bpf_map_lookup_elem(&table, &k); if (!v) return 0; __sync_fetch_and_add(&v->a, 1);
        v = bpf_map_lookup_elem(&table, &k); if (!v) return 0; __sync_fetch_and_add(&v->b, 1);""",
    "per-cpu-atomic": """__u32 k = 0; __u64 *v = bpf_map_lookup_elem(&percpu, &k);
        if (v) __sync_fetch_and_add(v, 1);""",
    "racy-update": """__u32 k = 1; __u64 *v = bpf_map_lookup_elem(&shared, &k); if (v) *v += 1;""",
    "dense-keys": """__u32 k = 3; struct value *v = bpf_map_lookup_elem(&table, &k);
        if (v) __sync_fetch_and_add(&v->a, 1);""",
    "padding": """struct event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0); if (!e) return 0;
        e->pid = 1; e->time = 2; bpf_ringbuf_submit(e, 0);""",
    "large-stack": """char big[400]; bpf_probe_read_kernel(big, sizeof(big), ctx);
        bpf_ringbuf_output(&ring, big, sizeof(big), 2);""",
    "old-helper": """__u64 v; bpf_probe_read(&v, 8, ctx); bpf_ringbuf_output(&ring, &v, 8, 2);""",
    "wake-up": """__u64 v = 1; bpf_ringbuf_output(&ring, &v, 8, 0);""",
    "unfiltered-output": """__u64 v = 1; bpf_ringbuf_output(&ring, &v, 8, 2);""",
}
MENDED = {
    "repeated-lookup": """__u32 k = bpf_get_smp_processor_id(); struct value *v, first = {};
        v = bpf_map_lookup_elem(&table, &k);
        if (!v) { bpf_map_update_elem(&table, &k, &first, 1); v = bpf_map_lookup_elem(&table, &k); }
        if (v) __sync_fetch_and_add(&v->b, 1);""",
    "per-cpu-atomic": """__u32 k = 0; __u64 *v = bpf_map_lookup_elem(&percpu, &k);
        if (v) *v += 1;""",
    "racy-update": """__u32 k = bpf_get_current_pid_tgid(); struct value *v;
        v = bpf_map_lookup_elem(&table, &k); if (v) v->a += 1;""",
    "dense-keys": """__u32 k = ctx[1]; struct value *v = bpf_map_lookup_elem(&table, &k);
        if (v) __sync_fetch_and_add(&v->a, 1);""",
    "padding": """struct event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0); if (!e) return 0;
        __builtin_memset(e, 0, sizeof(*e)); e->pid = 1; bpf_ringbuf_submit(e, 0);""",
    "large-stack": """char small[64]; bpf_probe_read_kernel(small, sizeof(small), ctx);
        bpf_ringbuf_output(&ring, small, sizeof(small), 2);""",
    "old-helper": """__u64 v; bpf_probe_read_kernel(&v, 8, ctx);
        bpf_ringbuf_output(&ring, &v, 8, 2);""",
    "wake-up": """__u64 v = 1; bpf_ringbuf_output(&ring, &v, 8, 2);""",
    "unfiltered-output": """__u64 v = 1; if (bpf_get_current_pid_tgid() >> 32 != 77) return 0;
        bpf_ringbuf_output(&ring, &v, 8, 2);""",
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_finds_what_breaks_it_and_nothing_that_is_mended(rule: str) -> None:
    assert rule in names(program(BROKEN[rule]))
    assert rule not in names(program(MENDED[rule]))


PAIRS = {
    "late-filter": ("early_return/before", "early_return/after"),
    "unfiltered-output": ("filtering/before", "filtering/after"),
    "split-value": ("code_structure/before", "code_structure/after"),
    "shared-atomic": ("per_cpu/before", "per_cpu/after"),
    "racy-update": ("per_cpu/racy", "per_cpu/before"),
    "never-deleted": ("lru/before", "lru/after"),
    "large-map": ("map_sizing/before", "map_sizing/after"),
    "perf-buffer": ("ring_buffer/before", "ring_buffer/after"),
    "padding": ("ring_buffer/padding", "ring_buffer/after"),
    "wake-up": ("high_frequency/before", "ring_buffer/after"),
    "batch-residue": ("batching/careless", "batching/after"),
    "single-call": ("inline_functions/before", "inline_functions/after"),
}


@pytest.mark.parametrize("rule", PAIRS)
def test_of_a_suite_the_program_before_is_found_and_that_after_is_not(rule: str) -> None:
    before, after = (rules_of(SUITES / f"{name}.bpf.c") for name in PAIRS[rule])
    assert rule in before
    assert rule not in after


def rules_of(path: Path) -> set[str]:
    with Loader() as bpf:
        return {finding.rule for finding in lint(bpf.open(path), str(path), ALL)}


def test_string_reading_breaks_one_rule_in_the_programs_that_loop() -> None:
    path = SUITES / "string_reading/reading.bpf.c"
    with Loader() as bpf:
        findings = lint(bpf.open(path), str(path), LintOptions(select=("byte-loop",)))
    programs = {name for finding in findings for name in finding.program.split(", ")}
    assert {"loop_openat", "loop_vfs_read"} <= programs
    assert not any("str" in name for name in programs)


def test_a_line_is_ignored_that_says_so(tmp_path: Path) -> None:
    source = tmp_path / "x.bpf.c"
    body = BROKEN["wake-up"].replace("bpf_ringbuf", "\n/* COMMENT */ bpf_ringbuf")
    for comment, count in (("bpf-lint: ignore", 0), ("bpf-lint: ignore[padding]", 1),
                           ("bpf-lint: ignore[padding, wake-up]", 0)):  # fmt: skip
        source.write_text(HEADER + MAPS + program(body.replace("COMMENT", comment)))
        with Loader() as bpf:
            findings = lint(bpf.open(source), str(source), LintOptions(select=("wake-up",)))
        assert len(findings) == count


def test_a_rule_that_does_not_exist_is_named_with_those_near_it() -> None:
    with Loader() as bpf, pytest.raises(UnknownNameError, match="late-filter"):
        lint(bpf.open(HEADER + program("")), "x", LintOptions(select=("late-filer",)))


def test_an_object_without_line_information_has_findings_without_lines() -> None:
    source = program("__u64 v; bpf_probe_read(&v, 8, ctx); return v;")
    with Loader() as bpf:
        obj = bpf.open(HEADER + source, cflags=["-g0"])
        finding = lint(obj, "stripped.o", LintOptions(select=("old-helper",)))
    assert [(each.file, each.line) for each in finding] == [("stripped.o", 0)]


@pytest.mark.unit
def test_formats() -> None:
    findings = [
        LintFinding("a,b.c", 3, "padding", "50 %\nof it", "p"),
        LintFinding("c.c", 0, "wake-up", "m"),
    ]
    assert FORMATS["text"](findings).endswith("c.c:0: wake-up: m\n2 findings")
    assert json.loads(FORMATS["json"](findings))[0]["line"] == 3
    first = FORMATS["github"](findings).splitlines()[0]
    assert first == "::warning file=a%2Cb.c,line=3,title=padding::50 %25%0Aof it"
    run = json.loads(FORMATS["sarif"](findings))["runs"][0]
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == set(RULES)
    region = run["results"][1]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 1}


@pytest.mark.unit
def test_the_page_of_the_rules_is_made_from_them() -> None:
    page = Path(lint_rules.__file__).parent / "reference/lint-rules.md"
    assert page.read_text() == lint_rules.page()


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    arguments: Sequence[str] = [sys.executable, "-m", "pytest_bpf", "lint", *words]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_s_exit_statuses(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.bpf.c", tmp_path / "bad.bpf.c"
    good.write_text(HEADER + program(""))
    assert command(cwd=tmp_path).returncode == 0
    bad.write_text(HEADER + MAPS + program(BROKEN["unfiltered-output"]))
    done = command(cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("bad.bpf.c:")
    assert command("--exit-zero", cwd=tmp_path).returncode == 0
    bad.write_text("int x = y;")
    done = command("bad.bpf.c", "good.bpf.c", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bad.bpf.c: ")
    for words in (["--kernel", "six"], ["--memory", "many"], ["--select", "nothing"]):
        done = command(*words, "good.bpf.c", cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.bpf_requires(attach="xdp")
def test_a_session_lists_findings(pytester: pytest.Pytester) -> None:
    source = HEADER + MAPS + program(BROKEN["unfiltered-output"])
    (pytester.path / "x.bpf.c").write_text(source)
    pytester.makepyfile("""
        import pytest
        @pytest.mark.parametrize("n", [1, 2])
        def test_it(bpf, n):
            assert bpf.load("x.bpf.c")
    """)
    for words in ((), ("-n", "2")):
        result = pytester.runpytest_subprocess("--bpf-lint", *words)
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["*bpf: what the lint rules find*", "*unfiltered-output*"])
        assert sum("unfiltered-output" in line for line in result.outlines) == 1


RANKED = program(
    """
    if (ctx[0] > 1000) {
        __u64 v = 1;
        bpf_ringbuf_output(&ring, &v, 8, 0); /* rare */
    }
    bpf_probe_read(&copy, 8, ctx); /* often */
    if (never)
        bpf_probe_read(&copy, 8, ctx); /* dead */
"""
).replace("tp_btf/sys_enter", "raw_tp")


def test_a_session_that_counts_lines_ranks_findings(pytester: pytest.Pytester) -> None:
    text = HEADER + MAPS + "const volatile int never = 0;\n__u64 copy;\n" + RANKED
    (pytester.path / "x.bpf.c").write_text(text)
    pytester.makepyfile("""
        def test_it(bpf):
            program = bpf.load("x.bpf.c").programs["p"]
            for number in (1, 1, 1, 2000):
                program.test_run(context=[number])
    """)
    lines = {
        words: next(n for n, line in enumerate(text.splitlines(), 1) if words in line)
        for words in ("rare", "often", "dead")
    }

    def findings(*options: str) -> list[str]:
        result = pytester.runpytest_subprocess("--bpf-lint", *options)
        result.assert_outcomes(passed=1)
        return [line for line in result.outlines if line.partition(":")[0].endswith("x.bpf.c")]

    plain = findings()
    assert sum(f":{lines['dead']}: old-helper" in line for line in plain) == 1
    assert not any("runs" in line for line in plain)
    shown = findings("--bpf-cov", "--bpf-cov-report=json:x.json")
    assert f":{lines['often']}: old-helper" in shown[0]
    assert shown[0].endswith("(4 runs)")
    assert not any(f":{lines['dead']}:" in line for line in shown)


@pytest.mark.unit
def test_findings_are_ranked_by_what_their_lines_cost() -> None:
    found = [LintFinding("a.c", line, "padding", "m") for line in (1, 2, 3, 4)]
    rows = ranked(
        found, MeasuredLines("runs", {("a.c", 2): 5, ("a.c", 4): 9}, frozenset({("a.c", 1)}))
    )
    assert [str(row) for row in rows] == [
        "a.c:4: padding: m (9 runs)",
        "a.c:2: padding: m (5 runs)",
        "a.c:3: padding: m",
    ]
