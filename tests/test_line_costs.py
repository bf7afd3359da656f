"""What lines cost; that it is right to the instruction is tested in the guest, in exact mode."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.coverage.line_costs import LineCost, LineCosts, line_costs
from pytest_bpf.errors import LoadError, NotMeasuredError
from pytest_bpf.reports.line_costs import FORMATS

if TYPE_CHECKING:
    from tests.conftest import Load

pytest_plugins = ["pytester"]

pytest.importorskip("capstone")

FIRST = 7

PROGRAM = """\
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");
SEC("socket")
int program(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *value;
	int i, total = 0;
	for (i = 0; i < 50; i++)
		total ^= *(volatile __u32 *)&skb->len + i;
	value = bpf_map_lookup_elem(&hits, &key);
	if (value)
		*value = total;
	bpf_ktime_get_ns();
	return 0;
}
"""


def test_lines_cost_as_often_as_they_run(load_once: Load) -> None:
    obj = load_once(PROGRAM)
    program = obj.programs["program"]
    program_id = program.id
    once = line_costs(obj, lambda: program.test_run(bytes(64)))
    twice = line_costs(obj, lambda: [program.test_run(bytes(64)) for _ in range(2)])
    assert twice.instructions == 2 * once.instructions
    loop = next(cost for cost in once if cost.line == FIRST + 13)
    assert loop.bpf_instructions >= 150
    assert loop.instructions >= 150
    assert loop == max(once, key=lambda cost: cost.instructions)
    assert once.helpers["bpf_ktime_get_ns"] == 1
    assert program.id == program_id
    assert "total ^=" in str(once)
    assert f"\n{loop.line} {loop.instructions} {loop.bpf_instructions}\n" in once.callgrind()


def test_a_workload_that_runs_nothing_is_not_measured(load_once: Load) -> None:
    with pytest.raises(NotMeasuredError, match="no program ran in the workload; programs that"):
        line_costs(load_once(PROGRAM), lambda: None)


def test_a_workload_that_fails_leaves_the_program(load_once: Load) -> None:
    obj = load_once(PROGRAM)
    program_id = obj.programs["program"].id
    with pytest.raises(ZeroDivisionError):
        line_costs(obj, lambda: 1 // 0)
    assert obj.programs["program"].id == program_id


def test_what_counts_lines_is_not_what_ships(load_once: Load) -> None:
    obj = load_once(PROGRAM)
    obj.recording = object()
    try:
        with pytest.raises(LoadError, match="is not what ships"):
            line_costs(obj, lambda: None)
    finally:
        obj.recording = None


def test_costs_of_one_line_are_added() -> None:
    one = LineCost("/x.c", 3, 5, 4, {"bpf_map_lookup_elem": 1})
    assert LineCosts.of([one, LineCost("/x.c", 2, 1, 1), one]) == (
        LineCost("/x.c", 2, 1, 1, {}),
        LineCost("/x.c", 3, 10, 8, {"bpf_map_lookup_elem": 2}),
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_session_shows_what_its_lines_cost(pytester: pytest.Pytester, workers: str) -> None:
    project = Path(__file__).parent / "coverage_project"
    shutil.copytree(project, pytester.path, dirs_exist_ok=True)
    (pytester.path / "pytest.ini").touch()
    result = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "-n", workers, "--bpf-annotate-report=callgrind:lines.out"),
    )
    assert result.ret == 0
    result.stdout.re_match_lines_random(
        [
            r" +\d+ +[\d.]+ % \|   27 \tcount = bpf_map_lookup_elem.* \+ 1 x bpf_map_lookup_elem",
            r"helpers, whose instructions are apart: 1 x bpf_map_lookup_elem",
            r"callgrind written to .*/lines\.out",
        ]
    )
    assert "events: Instructions" in (pytester.path / "lines.out").read_text()


def test_costs_as_a_page_and_for_speedscope(tmp_path: Path) -> None:
    source = tmp_path / "x<b>.c"
    source.write_text("int a;\nif (a < 2)\n\n\n\n\nreturn 1;\n")
    costs = LineCosts.of(
        [
            LineCost(str(source), 2, 30, 4, {"bpf_map_lookup_elem": 1}),
            LineCost(str(source), 7, 10, 1),
            LineCost("/gone.h", 3, 1, 1),
        ]
    )
    page = FORMATS["html"](costs)
    assert "<td>30</td><td>73.2 %</td><td>2</td><td class='c'" in page
    assert "if (a &lt; 2)</td><td class='r'>+ 1 x bpf_map_lookup_elem</td>" in page
    assert "x&lt;b&gt;.c</h3>" in page
    assert "gone.h, which cannot be read</h3>" in page
    assert "gone.h, which cannot be read:   (" in str(costs)
    assert "<tr class='gap'><td></td><td></td><td>6</td>" in page
    profile = json.loads(FORMATS["speedscope"](costs))
    (only,) = profile["profiles"]
    assert only["weights"] == [1, 30, 10]
    assert only["endValue"] == 41
    stacks = [[profile["shared"]["frames"][at]["name"] for at in s] for s in only["samples"]]
    assert stacks[1][1] == "x<b>.c:2 if (a < 2)"
    assert stacks[0][1] == "gone.h:3"
    assert json.loads(FORMATS["json"](costs))[1]["helpers"] == {"bpf_map_lookup_elem": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("callgrid:x", "no format 'callgrid'; did you mean 'callgrind'?"),
        ("html", "--bpf-annotate-report=html: to which file? html:FILE"),
        ("json:.", "--bpf-annotate-report=json:.: . is a folder, name a file"),
    ],
)
def test_a_wrong_report_is_a_sentence(pytester: pytest.Pytester, value: str, message: str) -> None:
    result = pytester.runpytest_subprocess(f"--bpf-annotate-report={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


def test_costs_and_coverage_are_two_sessions(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--bpf-annotate", "--bpf-cov")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--bpf-annotate counts programs as they ship" in result.stderr.str()
