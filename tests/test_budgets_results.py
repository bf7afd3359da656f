"""Result files, allowed changes and comparisons; no kernel, no privilege."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from benchmarks import mutations
from pytest_bpf.budgets import results
from pytest_bpf.budgets.baseline import Baseline
from pytest_bpf.budgets.compare import comparable, compare, compare_all, worth_keeping
from pytest_bpf.budgets.environment import Environment, here
from pytest_bpf.budgets.results import Key, ResultFileError, Results
from pytest_bpf.budgets.tolerance import (
    DEFAULTS,
    Tolerance,
    ToleranceError,
    parse_lines,
    tolerance_for,
)
from pytest_bpf.costs.figures.figure import Figure, Instrument

HERE = Environment("6.1.0-56-amd64", "clang 14.0.6", "x86_64", "exact")


def key(metric: str = "instructions", test: str = "test_a.py::test_x", **changed: str) -> Key:
    where = Environment(**{**vars(HERE), **changed})
    return Key(where, test, "prog count", metric)


def exact(value: float) -> Figure:
    return Figure.certain("instructions", "prog count", value, "exact")


def noisy(lower: float, value: float, upper: float, instrument: Instrument = "clock") -> Figure:
    samples = (lower, value, upper)
    return Figure("run_time", "prog count", value, lower, upper, instrument, samples=samples)


SOME = Results(
    figures={
        key(): exact(230),
        key("run_time", instrument="clock", machine="a CPU"): noisy(80.25, 84.2, 90),
        key("cpu", instrument="clock"): Figure("cpu", "prog count", 0.02, None, None, "clock"),
        key("loss"): Figure.missing("loss", "prog count", "no reader", "exact"),
    },
    allowed={"run_time": "10%"},
    findings=(
        {
            "test": "t",
            "kernel": "6.1",
            "metric": "cpu",
            "subject": "",
            "verdict": "fail",
            "kind": "broken",
            "headline": "cpu ...",
            "summary": "30 % of 20 %",
            "value": 0.3,
            "limit": 0.2,
        },
    ),
)


# -- files -------------------------------------------------------------------------------------


def test_a_file_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "baseline.json"
    results.write(path, SOME)
    assert results.read(path) == SOME
    assert [file.name for file in path.parent.iterdir()] == ["baseline.json"]


def test_a_file_is_as_its_schema_says() -> None:
    schema = json.loads(results.SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(results.format_results(SOME)), schema)
    wrong = json.loads(results.format_results(SOME))
    wrong["environments"][0]["instrument"] = "guess"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_a_file_is_sorted_with_one_figure_a_line() -> None:
    again = Results(dict(reversed(list(SOME.figures.items()))), SOME.allowed, SOME.findings)
    assert results.format_results(again) == results.format_results(SOME)
    assert '"instructions": {"value": 230, "unit": "instructions"}' in results.format_results(SOME)
    assert results.format_results(SOME).count('"value"') == len(
        [line for line in results.format_results(SOME).splitlines() if '"value"' in line]
    )


def test_newer_figures_take_the_place_of_older_ones() -> None:
    merged = SOME.merged({key(): exact(231), key(test="test_b.py::test_y"): exact(5)})
    assert merged.figures[key()].value == 231
    assert len(merged.figures) == len(SOME.figures) + 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is JSON, but no result file of pytest-bpf"),
        ('{"format": "other"}', "no result file of pytest-bpf"),
        (
            '{"format": "pytest-bpf results", "schema": 9}',
            "has schema 9, and this pytest-bpf knows",
        ),
        (
            '{"format": "pytest-bpf results", "schema": 1}',
            "is not as its schema says: it has no 'environments'",
        ),
        (
            '{"format": "pytest-bpf results", "schema": 1, "environments": [{"tests": {}}]}',
            "is not as its schema says: environments[0] has no 'kernel'",
        ),
        (
            results.format_results(SOME).replace('"value": 230', '"value": "much"'),
            "value is 'much', not a number",
        ),
        (
            results.format_results(SOME).replace('"unit": "instructions"', '"unit": "ns"'),
            "instructions: unit is 'ns', not 'instructions'",
        ),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(content)
    with pytest.raises(ResultFileError) as caught:
        results.read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match=r"cannot be read: No such file"):
        results.read(tmp_path / "none.json")
    (tmp_path / "file").touch()
    with pytest.raises(ResultFileError, match=r"cannot be written: .*(exists|Not a directory)"):
        results.write(tmp_path / "file" / "a.json", SOME)
    with pytest.raises(ResultFileError, match="it is a folder"):
        results.write(tmp_path, SOME)


def test_figures_depend_on_as_much_as_their_instrument_does() -> None:
    machines = {kind: here(kind, "clang 14.0.6").machine for kind in DEFAULTS}
    assert machines["verifier"] == machines["exact"] == ""
    assert machines["kernel"].endswith(" CPUs")
    assert machines["clock"].endswith(machines["kernel"])
    assert len(machines["clock"]) > len(machines["kernel"]) + 2


# -- allowed changes ---------------------------------------------------------------------------


def test_changes_are_shares_or_figures() -> None:
    allowed = parse_lines(["run_time: 10%", "instructions: 0", "map_memory : 4KiB", ""])
    assert allowed["run_time"].room(200) == pytest.approx(20)
    assert allowed["instructions"].room(200) == 0
    assert allowed["map_memory"].room(200) == 4096


def test_what_is_the_same_each_time_may_not_change() -> None:
    assert tolerance_for("run_time", "clock", {}) == Tolerance(relative=0.05)
    assert {tolerance_for("x", kind, {}) for kind in DEFAULTS if kind != "clock"} == {Tolerance()}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("instruction: 0", "there is no metric 'instruction' to change; did you mean"),
        ("run_time: 10B", "allowed change of run_time: '10B' is in 'B'"),
        ("run_time: -5%", "'-5%' is negative"),
        ("run_time", "allowed change of run_time: '' is not a time"),
    ],
)
def test_changes_that_are_none(line: str, said: str) -> None:
    with pytest.raises(ToleranceError) as caught:
        parse_lines([line])
    assert said in str(caught.value)


# -- comparisons -------------------------------------------------------------------------------


def test_one_instruction_more_is_found() -> None:
    worse = compare(exact(230), exact(231), Tolerance())
    assert worse.verdict == "fail"
    assert worse.headline == (
        "prog count: instructions 230 -> 231: +1 (+0.435 %), where no change is allowed"
    )
    assert compare(exact(230), exact(230), Tolerance()).kind == "same"
    assert compare(exact(230), exact(229), Tolerance()).kind == "better"
    assert compare(exact(230), exact(240), Tolerance(absolute=10)).verdict == "pass"
    assert compare(exact(230), exact(241), Tolerance(absolute=10)).verdict == "fail"


def test_next_to_nothing_may_be_a_little_more() -> None:
    def time(value: float) -> Figure:
        samples, beside = (value,) * 30, (270.0,) * 30
        return Figure("run_time", "prog a", value, value, value + 1, "clock", samples, beside)

    allowed = Tolerance(relative=0.05)
    assert compare(time(3.4), time(6.7), allowed).verdict == "pass"
    assert compare(time(3.4), time(20), allowed).verdict == "fail"
    assert compare(time(300), time(340), allowed).verdict == "fail"


def test_what_is_better_from_above_is_worse_from_below() -> None:
    before, after = (Figure.certain("events_per_second", "", n, "clock") for n in (1000, 850))
    assert compare(before, after, Tolerance(relative=0.1)).verdict == "fail"
    assert compare(after, before, Tolerance(relative=0.1)).kind == "better"


def test_what_is_new_passes() -> None:
    new = compare(None, exact(230), Tolerance())
    assert (new.verdict, new.kind) == ("pass", "new")
    assert new.headline == ("prog count: instructions 230 is new: it is in no baseline")


def test_files_are_compared_key_by_key() -> None:
    before = {key(): exact(230), key(test="old"): exact(1)}
    after = {key(): exact(240), key(test="new"): exact(2)}
    found = compare_all(before, after, {"instructions": Tolerance(relative=0.01)})
    kinds = {key.test: finding.kind for key, finding in found.items()}
    assert kinds == {"test_a.py::test_x": "worse", "old": "gone", "new": "new"}
    assert found[key(test="old")].verdict == "not measured"


def test_baselines_keep_what_compares() -> None:
    assert comparable(exact(230))
    assert comparable(noisy(80, 84, 90))
    assert not comparable(Figure("run_time", "prog a", 84, None, None, "clock"))
    assert not comparable(Figure.missing("loss", "", "no reader", "kernel"))
    assert not comparable(Figure.certain("run_cnt", "prog a", 5, "kernel"))
    assert comparable(Figure.certain("total_states", "prog a", 5, "verifier"))
    assert not worth_keeping(Figure.certain("total_states", "prog a", 5, "verifier"))


def test_what_a_baseline_did_not_measure_is_said_to_be_so() -> None:
    old = Results({key(): Figure.missing("instructions", "prog count", "no run", "exact")})
    finding = Baseline(Path("b.json"), old).finding(key(), exact(230))
    assert "it was not measured when the baseline was saved" in finding.headline


def test_details_tell_of_both() -> None:
    lines: list[Any] = compare(noisy(80, 84, 90), noisy(150, 160, 170), Tolerance()).details(1)
    assert lines[0] == "before: between 80 ns and 90 ns"
    assert lines[2] == "now: between 150 ns and 170 ns"


def test_a_damaged_file_is_an_error_of_ours_or_none() -> None:
    with mutations.baselines() as once:
        faults = [wrong for seed in range(200) if (wrong := mutations.attempt(once, seed))]
    assert not faults


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        results.write_text(pipe, "content")
        assert os.read(reader, 100) == b"content"
    finally:
        os.close(reader)
    with pytest.raises(ResultFileError, match="/dev/full cannot be written: No space left"):
        results.write_text(Path("/dev/full"), "content")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
