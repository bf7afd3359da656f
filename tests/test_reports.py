"""The formats of ``--bpf-report`` against their schemas, and ``pytest-bpf compare``."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from pytest_bpf.budgets import results
from pytest_bpf.budgets.compare import compare
from pytest_bpf.budgets.environment import Environment
from pytest_bpf.budgets.findings import Finding, as_dict
from pytest_bpf.budgets.judge import judge
from pytest_bpf.budgets.limits import parse
from pytest_bpf.budgets.results import Key, Results
from pytest_bpf.budgets.tolerance import Tolerance
from pytest_bpf.costs.figures.figure import METRICS, Figure, Instrument
from pytest_bpf.plugin.options import REPORT_FORMATS
from pytest_bpf.reports import comparison
from pytest_bpf.reports.budget_section import budget_lines
from pytest_bpf.reports.formats import FORMATS, bencher, benchmark
from pytest_bpf.reports.markdown import MARK, markdown
from pytest_bpf.reports.veristat import read_veristat, veristat

if TYPE_CHECKING:
    from pathlib import Path

TEST = "tests/test_a.py::test_x[a,b]"

NUMBER = {"type": "number"}

BENCHER_SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9a-z]+(-[0-9a-z]+)*$", "maxLength": 64},
        "additionalProperties": {
            "type": "object",
            "properties": {"value": NUMBER, "lower_value": NUMBER, "upper_value": NUMBER},
            "required": ["value"],
            "additionalProperties": False,
        },
    },
}
"""The Bencher Metric Format, as https://bencher.dev/bmf.json has it, and slugs as measures."""

BENCHMARK_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "unit": {"type": "string"},
            "value": NUMBER,
            "range": {"type": "string"},
            "extra": {"type": "string"},
        },
        "required": ["name", "unit", "value"],
        "additionalProperties": False,
    },
}
"""What github-action-benchmark documents of its custom benchmarks."""


def figure(metric: str, subject: str, value: float | None, spread: float = 0.0) -> Figure:
    if value is None:
        return Figure.missing(metric, subject, "no reader", "kernel")
    by: Instrument = "clock" if spread else "verifier"
    samples = (value - spread, value, value + spread) * 3 if spread else ()
    return Figure(metric, subject, value, value - spread, value + spread, by, samples)


def results_of(*measured: Figure, test: str = TEST, kernel: str = "6.1.0") -> dict[Key, Figure]:
    return {
        Key(Environment(kernel, "clang 14", "x86_64", f.instrument), test, f.subject, f.metric): f
        for f in measured
    }


MEASURED = results_of(
    figure("run_time", "prog count", 84.25, 2),
    figure("verified_insns", "prog count", 35),
    figure("total_states", "prog count", 3),
    figure("peak_states", "prog count", 2),
    figure("loss", "map events", None),
    figure("cpu", "", 0.03125, 0.0078125),
    figure("events_per_second", "map events", 5000, 10),
)


def findings() -> list[dict[str, Any]]:
    before = [figure("run_time", "prog count", 60, 2), figure("verified_insns", "prog count", 35)]
    after = [f for f in MEASURED.values() if f.subject == "prog count"][:2]
    found: list[Finding] = [
        compare(old, new, Tolerance(0.1)) for old, new in zip(before, after, strict=True)
    ]
    found += judge(parse([], {"cpu": ("2%", "5%"), "loss": "1%"}, "marker"), MEASURED.values())
    found.append(compare(None, figure("stack_depth", "prog count", 16), Tolerance()))
    return [{"test": TEST, "kernel": "6.1.0", **as_dict(finding)} for finding in found]


ALL = Results(MEASURED, findings=tuple(findings()), sources={(TEST, "prog count"): "count.bpf.c"})


def test_every_format_has_a_writer(tmp_path: Path) -> None:
    assert set(FORMATS) == {*REPORT_FORMATS, "claims"}  # which --bpf-claims writes
    for name, write in FORMATS.items():
        write(ALL, tmp_path / name)
        assert (tmp_path / name).read_text().strip()
        write(Results(), tmp_path / name)


def test_json_is_as_its_schema_says_and_reads_back(tmp_path: Path) -> None:
    FORMATS["json"](ALL, tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(content, json.loads(results.SCHEMA_FILE.read_text()))
    assert results.read(tmp_path / "r.json").figures == MEASURED
    assert {f["verdict"] for f in content["findings"]} >= {"fail", "warning", "not measured"}


def test_bencher_s_format() -> None:
    found = bencher(ALL)
    jsonschema.validate(found, BENCHER_SCHEMA)
    assert found[f"{TEST}, prog count"]["run-time"] == {
        "value": 84.25,
        "lower_value": 82.25,
        "upper_value": 86.25,
    }
    assert found[f"{TEST}, prog count"]["verified-insns"] == {"value": 35}
    assert "loss" not in found.get(f"{TEST}, map events", {})


def test_github_action_benchmark_s_format() -> None:
    smaller, bigger = benchmark(ALL, better="lower"), benchmark(ALL, better="higher")
    for found in (smaller, bigger):
        jsonschema.validate(found, BENCHMARK_SCHEMA)
    assert [entry["name"] for entry in bigger] == [f"{TEST}, map events: events_per_second"]
    by_name = {entry["name"]: entry for entry in smaller}
    assert by_name[f"{TEST}, prog count: run_time"]["range"] == "82.25 ns to 86.25 ns"
    assert by_name[f"{TEST}: cpu"]["unit"] == "%"
    assert by_name[f"{TEST}: cpu"]["value"] == pytest.approx(3.125)
    names = [entry["name"] for entry in smaller + bigger]
    assert len(names) == len(set(names)) == 6


def test_kernels_are_named_where_there_are_several() -> None:
    both = {**MEASURED, **results_of(figure("verified_insns", "prog count", 9), kernel="6.18")}
    assert f"{TEST}, prog count, kernel 6.18" in bencher(Results(both))
    assert not any("kernel" in name for name in bencher(ALL))


def test_markdown_has_before_after_and_change() -> None:
    lines = markdown(ALL)
    assert lines[0] == MARK
    assert lines[1] == "### eBPF costs: ❌ 1 of 5 figures failed"
    text = "\n".join(lines)
    assert (
        "| ❌ | `prog count` | run_time | 60 ns | 84.25 ns | +24.25 ns (+40.4 %) | "
        f"`{TEST}` |" in lines
    )
    assert f"| ⚠️ |  | cpu | 3.125 % | 5 % | `{TEST}` |" in lines
    assert "<summary>Changes: 2 without complaint</summary>" in text
    for line in lines:
        if line.startswith("| "):
            assert line.count("|") in (7, 8)


def test_markdown_of_figures_alone() -> None:
    lines = markdown(Results(MEASURED))
    assert f"| `prog count` | run_time | 84.25 ns | `{TEST}` |" in lines


def test_a_step_s_summary_is_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# Of another step\n")
    FORMATS["markdown"](ALL, summary)
    assert "another" not in summary.read_text()
    summary.write_text("# Of another step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    FORMATS["markdown"](ALL, summary)
    assert summary.read_text().startswith("# Of another step\n<!-- pytest-bpf -->")


def test_veristat_s_csv_is_read_as_it_was_written() -> None:
    written = veristat(ALL)
    assert written.splitlines() == [
        "file_name,prog_name,verdict,total_insns,total_states,peak_states",
        "count.bpf.c,count,success,35,3,2",
    ]
    read = read_veristat(written).figures
    assert {(k.test, k.subject, k.metric): f.value for k, f in read.items()} == {
        ("count.bpf.c", "prog count", "verified_insns"): 35,
        ("count.bpf.c", "prog count", "total_states"): 3,
        ("count.bpf.c", "prog count", "peak_states"): 2,
    }
    no_source = veristat(Results(MEASURED))
    assert "tests/test_a.py::test_x[a;b],count," in no_source, "commas would end the column"
    assert len(list(csv.DictReader(no_source.splitlines()))) == 1


VERISTAT = """\
file_name,prog_name,verdict,duration,total_insns,total_states,peak_states
a.bpf.o,count,success,36,24,1,1
a.bpf.o,drop,success,82,104,6,6
"""


def compared(
    before: Path, after: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str]:
    status = comparison.main([str(before), str(after), *options])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_compare_reads_what_veristat_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "a.csv", tmp_path / "b.csv"
    before.write_text(VERISTAT)
    after.write_text(VERISTAT)
    assert compared(before, after, capsys) == (0, "6 same\n")
    after.write_text(VERISTAT.replace("104", "120"))
    status, said = compared(before, after, capsys)
    assert status == 1
    assert said.splitlines()[1].split("  ")[0] == "worse"
    assert "104     120    +16 (+15.4 %)" in said
    assert compared(before, after, capsys, "--allow", "verified_insns: 20%")[0] == 0
    assert compared(after, before, capsys)[0] == 0
    assert compared(before, after, capsys, "--csv", str(tmp_path / "diff.csv"))[0] == 1
    rows = list(csv.DictReader((tmp_path / "diff.csv").read_text().splitlines()))
    assert [row["total_insns_diff"] for row in rows] == ["+0 (+0.00%)", "+16 (+15.38%)"]
    assert [row["verdict_diff"] for row in rows] == ["MATCH", "MATCH"]
    after.write_text(VERISTAT.replace("drop,success,82,104,6,6", "drop,failure,82,0,0,0"))
    status, said = compared(before, after, capsys)
    assert (status, said.splitlines()[-1]) == (0, "3 gone, 3 same")
    assert compared(before, after, capsys, "--strict")[0] == 1


def test_compare_reads_reports_and_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, table = (tmp_path / name for name in ("a.json", "b.json", "t.md"))
    results.write(before, Results(results_of(figure("verified_insns", "prog count", 30))))
    FORMATS["json"](ALL, after)
    status, said = compared(before, after, capsys, "--markdown", str(table))
    assert status == 1
    worse = next(line for line in said.splitlines() if line.startswith("worse"))
    assert worse.split()[1:] == [
        TEST,
        *["prog", "count", "verified_insns", "30", "35", "+5", "(+16.7", "%)"],
    ]
    assert "| ❌ | `prog count` | verified_insns | 30 | 35 | +5 (+16.7 %) |" in table.read_text()
    again = Results(results_of(figure("verified_insns", "prog count", 30)), {"verified_insns": "5"})
    results.write(before, again)
    assert compared(before, after, capsys)[0] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "is no CSV of veristat: its first line has no file_name and no prog_name"),
        (VERISTAT.replace("104", "many"), "line 3: total_insns 'many' is no whole number"),
    ],
)
def test_compare_refuses_what_is_neither(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    status, text = compared(tmp_path / "a.csv", tmp_path / "a.csv", capsys)
    assert (status, said in text) == (2, True)
    status, text = compared(tmp_path / "none.json", tmp_path / "a.csv", capsys)
    assert (status, "cannot be read: No such file" in text) == (2, True)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(VERISTAT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest_bpf", "compare", "a.csv", "a.csv", "--all"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 8


def test_the_terminal_has_a_line_for_what_is_not_well() -> None:
    lines = budget_lines(ALL.findings)
    verdicts = [line.split("  ")[0] for line in lines]
    assert verdicts == ["fail", "warning", "not measured", "figures: 1 as before, 1 new"]
    assert "run_time 60 ns -> 84.25 ns: +24.25 ns (+40.4 %)" in lines[0]
    assert "verified_insns" not in lines[0]
    assert "verified_insns 35, as before" in budget_lines(ALL.findings, verbosity=1)[0]
    assert budget_lines([]) == []


def test_several_kernels_are_columns_of_one_table() -> None:
    """Of a figure that something is to be said of on one of them, what it is on each."""
    elsewhere = compare(
        figure("run_time", "prog count", 60, 2),
        figure("run_time", "prog count", 60, 2),
        Tolerance(),
    )
    second = [{"test": TEST, "kernel": "6.12", **as_dict(elsewhere)}]
    lines = budget_lines([*ALL.findings, *second])
    rows = [re.split(r"  +", line) for line in lines if line.startswith(("  ", f"{TEST}  "))]
    assert rows == [
        ["", "6.1.0", "6.12"],
        [TEST, "-", "cpu", "3.125 % warning", "-"],
        [TEST, "map events", "loss", "not measured", "-"],
        [TEST, "prog count", "run_time", "84.25 ns (was 60 ns) fail", "60 ns"],
    ]
    every = budget_lines([*ALL.findings, *second], verbosity=1)
    assert any(re.search("  prog count +verified_insns +35 +-$", line) for line in every)


def test_every_metric_can_be_reported() -> None:
    every = results_of(*(figure(metric, "prog a", 1) for metric in METRICS))
    jsonschema.validate(bencher(Results(every)), BENCHER_SCHEMA)
    assert len(markdown(Results(every))) > len(METRICS)
