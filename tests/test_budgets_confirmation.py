"""A time that got worse fails a test only when another load of it says so too."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import Figure
from pytest_bpf.budgets.change import ATTEMPTS
from pytest_bpf.budgets.compare import Uncertain, Worse, compare
from pytest_bpf.budgets.confirmation import is_disturbed, needs_confirmation, settle
from pytest_bpf.budgets.tolerance import Tolerance

if TYPE_CHECKING:
    from pytest_bpf.budgets.findings import Finding
    from pytest_bpf.costs.figures.figure import Instrument

TESTS = """
import json
from pathlib import Path
import pytest
from pytest_bpf import Figure

@pytest.fixture(scope="module")
def made():
    made = Path("made")
    made.write_text(made.read_text() + "." if made.exists() else ".")

@pytest.mark.parametrize("name", ["lucky", "changed", "same", "disturbed", "failing"])
def test_it(bpf_budget, made, name):
    taken = json.loads(Path("taken.json").read_text())
    nanoseconds, beside = taken[name].pop(0)
    Path("taken.json").write_text(json.dumps(taken))
    samples = tuple(nanoseconds + number / 10 for number in range(20))
    reference = tuple(beside) if isinstance(beside, list) else (beside,) * 20
    interval = samples[2], samples[0], samples[4]
    bpf_budget(Figure("run_time", "prog a", *interval, "clock", samples, reference))
"""
"""Tests whose n-th run takes what the n-th entry of a file says, beside the fixed program's."""

QUIET, BUSY = 270, 400


def run_time(nanoseconds: float, beside: float = QUIET) -> Figure:
    samples = tuple(nanoseconds + number / 10 for number in range(20))
    return Figure(
        "run_time", "prog a", samples[2], samples[0], samples[4], "clock", samples, (beside,) * 20
    )


def against_100(*nanoseconds: float) -> list[Finding]:
    return [
        compare(run_time(100), run_time(each), Tolerance(relative=0.05)) for each in nanoseconds
    ]


def kind(*nanoseconds: float) -> str | None:
    found = settle(against_100(*nanoseconds))
    return found.kind if found else None


def test_what_several_loads_say_together() -> None:
    assert kind(120) is None
    assert kind(120, 121) == "worse"
    assert kind(120, 100) == kind(100) == "same"
    assert kind(120, 105, 121) == "worse"
    assert kind(120, 105, 80) == "better"
    assert kind(*[105] * ATTEMPTS) == "uncertain"


def test_loads_that_do_not_agree() -> None:
    found = settle(against_100(*[105] * (ATTEMPTS - 1), 120))
    assert isinstance(found, Uncertain)
    assert found.headline.endswith("cannot be told")
    assert found.summary.endswith(f", {ATTEMPTS} loads do not agree")


def test_it_says_why_it_cannot_be_told() -> None:
    found = compare(run_time(100), run_time(100, beside=BUSY), Tolerance(relative=0.05))
    assert "the machine was 48% slower now: 0 of 20 batches count" in found.headline
    assert needs_confirmation(found)


CERTAIN: tuple[tuple[str, Instrument], ...] = (
    ("verified_insns", "verifier"),
    ("instructions", "exact"),
)


def test_what_needs_no_other_load() -> None:
    worse = compare(run_time(100), run_time(120), Tolerance())
    assert isinstance(worse, Worse)
    assert needs_confirmation(worse)
    for metric, instrument in CERTAIN:
        before, after = (Figure.certain(metric, "prog a", n, instrument) for n in (5, 6))
        assert not needs_confirmation(compare(before, after, Tolerance()))
    assert not needs_confirmation(compare(run_time(100), run_time(100), Tolerance(relative=0.05)))


def test_in_a_session(pytester: pytest.Pytester) -> None:
    def write(**taken: list[tuple[int, int]]) -> None:
        (pytester.path / "taken.json").write_text(json.dumps(taken))

    pytester.makepyfile(test_it=TESTS)
    same = [(100, QUIET)]
    write(lucky=same, changed=same, same=same, disturbed=same, failing=same)
    assert pytester.runpytest_subprocess("--bpf-save-baseline").ret == 0
    write(
        lucky=[(130, QUIET), *same, *same],
        changed=[(130, QUIET)] * 3,
        same=same * 2,
        disturbed=[(130, BUSY)] * (ATTEMPTS + 1),
        failing=[],
    )
    result = pytester.runpytest_subprocess("--bpf-baseline=main")
    result.assert_outcomes(passed=3, failed=2)
    left = json.loads((pytester.path / "taken.json").read_text())
    assert {name: len(entries) for name, entries in left.items()} == dict.fromkeys(
        ("lucky", "changed", "same", "disturbed"), 1
    ) | {"failing": 0}
    result.stdout.fnmatch_lines_random(
        [
            "*prog a: run_time 100*ns -> 130*ns*",
            "inconclusive *disturbed* *the machine was 48% slower now: 0 of 20 batches count",
            "*IndexError*",
        ]
    )


DISTURBED = [QUIET] * 7 + [BUSY] * 13


def test_a_disturbed_run_is_known_by_itself() -> None:
    few, enough = replace(run_time(100), reference=tuple(DISTURBED)), run_time(100)
    assert is_disturbed(few)
    assert not is_disturbed(enough)
    assert not is_disturbed(replace(few, reference=(*DISTURBED[:7], QUIET, *DISTURBED[8:])))
    assert not is_disturbed(replace(few, samples=few.samples[:7], reference=(QUIET,) * 7))
    assert not is_disturbed(Figure.certain("verified_insns", "prog a", 5, "verifier"))


@pytest.mark.parametrize("flag", ["--bpf-save-baseline", "--bpf-update-baseline"])
def test_a_baseline_is_not_made_of_a_disturbed_run(pytester: pytest.Pytester, flag: str) -> None:
    def run(*taken: tuple[int, object], flag: str = flag) -> dict[str, list[object]]:
        entries = json.dumps({"same": taken})
        (pytester.path / "taken.json").write_text(entries)
        result = pytester.runpytest_subprocess("test_it.py::test_it[same]", flag)
        result.assert_outcomes(passed=1)
        left: dict[str, list[object]] = json.loads((pytester.path / "taken.json").read_text())
        return left

    pytester.makepyfile(test_it=TESTS)
    assert run((200, DISTURBED), (100, QUIET), (300, QUIET))["same"] == [[300, QUIET]]
    run((100, QUIET), flag="--bpf-baseline=main")
    assert run(*[(100, DISTURBED)] * (ATTEMPTS + 1))["same"] == [[100, DISTURBED]]


def test_a_module_s_fixtures_are_made_anew(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=TESTS)
    for taken, flag in (([100], "--bpf-save-baseline=main"), ([130, 130], "--bpf-baseline=main")):
        entries = json.dumps({"lucky": [(each, QUIET) for each in taken]})
        (pytester.path / "taken.json").write_text(entries)
        pytester.runpytest_subprocess(flag, "test_it.py::test_it[lucky]")
    assert (pytester.path / "made").read_text() == "..."
