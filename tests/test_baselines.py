"""Baselines in sessions of their own: saved, compared, accepted; and files that are none."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.budget_sessions import Session, refused, session_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Session]

pytestmark = pytest.mark.bpf_requires(attach="xdp", map_type="ringbuf")

TEXT = """
import os

@pytest.mark.parametrize("n", [1, 2])
def test_look(bpf, bpf_budget, n):
    drive(bpf)
    bpf_budget(batches(float(os.environ.get("TIME", 100)), 99, 101))

@budget
def test_wrong(bpf):
    drive(bpf)
    assert "WRONG" not in os.environ

def test_without_budget(bpf): drive(bpf)

def test_without_bpf(): pass
"""

SAVED = "bpf-baselines/main.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, str]:
    """What a first run said, and the baseline that it saved."""
    folder = tmp_path_factory.mktemp("saved")
    told = session_in(folder, TEXT, "--bpf-save-baseline")
    return told, (folder / SAVED).read_text()


@pytest.fixture
def run(tmp_path: Path, saved: tuple[Session, str]) -> Run:
    """Run the same tests where that baseline is."""
    (tmp_path / "bpf-baselines").mkdir()
    (tmp_path / SAVED).write_text(saved[1])
    return lambda *args, text=TEXT: session_in(tmp_path, text, *args)


def figures(content: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {
        (test, subject, metric): figure
        for environment in json.loads(content)["environments"]
        for test, subjects in environment["tests"].items()
        for subject, metrics in subjects.items()
        for metric, figure in metrics.items()
    }


def test_a_baseline_keeps_what_compares(saved: tuple[Session, str]) -> None:
    told, content = saved
    found = figures(content)
    assert found["test_it.py::test_look[1]", "prog look", "run_time"]["value"] == 100
    assert found["test_it.py::test_look[2]", "prog look", "verified_insns"]["value"] > 0
    assert ("test_it.py::test_wrong", "prog look", "verified_insns") in found
    assert ("test_it.py::test_wrong", "prog look", "run_time") not in found, "read in one go"
    assert {test for test, _, _ in found}.isdisjoint({"test_it.py::test_without_budget"})
    assert {metric for _, _, metric in found}.isdisjoint({"run_cnt", "memory", "cpu"})
    assert told.section[-1].startswith("baseline saved: ")
    environments = json.loads(content)["environments"]
    assert {e["instrument"] for e in environments} == {"verifier", "kernel", "clock"}
    assert all(e["kernel"] and e["compiler"].startswith(("clang", "zig")) for e in environments)


def test_no_change_passes(run: Run, tmp_path: Path) -> None:
    before = (tmp_path / SAVED).read_text()
    told = run("--bpf-baseline", "main")
    assert not told.failed
    assert told.section == [f"figures: {len(figures(before))} as before"]
    assert (tmp_path / SAVED).read_text() == before


def test_a_dearer_program_fails_its_tests_and_no_others(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIME", "150")
    told = run("--bpf-baseline", "main", "--bpf-report=html:r.html", "--color=yes")
    assert re.search(r"\x1b\[31mfail +test_it.py::test_look", told.output)  # red
    assert '<td class="plot"><svg' in (tmp_path / "r.html").read_text()  # then and now
    assert told.failed == {"test_look[1]", "test_look[2]"}
    assert (
        "run_time 100 ns -> 150 ns: +50 ns (+50 %), where 5 % is allowed"
        in (told.messages["test_look[1]"])
    )
    assert not run("--bpf-baseline", "main", "-o", "bpf_allowed=run_time: 60%").failed


def test_accepting_a_change_shows_it_and_writes_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIME", "150")
    monkeypatch.setenv("WRONG", "")
    told = run("--bpf-update-baseline")
    assert told.failed == {"test_wrong"}
    shown = "accepted test_it.py::test_look[1] prog look run_time 100 ns -> 150 ns: +50 ns (+50 %)"
    assert shown in told.section
    found = figures((tmp_path / SAVED).read_text())
    assert found["test_it.py::test_look[1]", "prog look", "run_time"]["value"] == 150
    assert ("test_it.py::test_wrong", "prog look", "verified_insns") in found, "it stays as it was"
    monkeypatch.delenv("WRONG")
    assert not run("--bpf-baseline", "main").failed


def test_what_a_failed_test_would_change_is_not_accepted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIME", "150")
    told = run("--bpf-update-baseline", "--bpf-budget=run_time=50ns")
    assert {"test_look[1]", "test_look[2]"} <= told.failed
    assert not any(line.startswith("accepted ") for line in told.section)
    assert "run_time 100 ns -> 150 ns: +50 ns (+50 %)" in told.line("test_look[1]")
    found = figures((tmp_path / SAVED).read_text())
    assert found["test_it.py::test_look[1]", "prog look", "run_time"]["value"] == 100


def test_what_is_new_passes_unless_it_is_required(run: Run) -> None:
    text = TEXT + "\n@budget\ndef test_new(bpf): drive(bpf)\n"
    told = run("--bpf-baseline", "main", text=text)
    assert not told.failed
    assert any(" new" in line for line in told.section if line.startswith("figures: "))
    told = run("--bpf-baseline", "main", "--bpf-require-baseline", text=text)
    assert told.failed == {"test_new"}
    assert "has no baseline in" in told.messages["test_new"]


def test_a_baseline_of_another_kernel_is_said_and_not_compared(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((tmp_path / SAVED).read_text())
    for environment in content["environments"]:
        environment["kernel"] = "5.4.0-other"
    (tmp_path / SAVED).write_text(json.dumps(content))
    monkeypatch.setenv("TIME", "150")
    told = run("--bpf-baseline", "main")
    assert not told.failed
    said = "\n".join(told.section)
    assert "not compared: the baseline is of kernel 5.4.0-other, " in said
    told = run("--bpf-save-baseline=main")
    kernels = {e["kernel"] for e in json.loads((tmp_path / SAVED).read_text())["environments"]}
    assert len(kernels) == 2, "the other kernel's figures are still there"


def test_no_baseline_yet(run: Run, tmp_path: Path) -> None:
    told = run("--bpf-baseline", "other")
    assert not told.failed
    assert not (tmp_path / "bpf-baselines" / "other.json").exists()
    assert told.section[0].startswith("figures: ")
    assert told.section[0].endswith(" new")
    assert told.section[1].startswith("no baseline yet: ")


def test_workers_write_one_file(run: Run, tmp_path: Path, saved: tuple[Session, str]) -> None:
    pytest.importorskip("xdist")
    told = run("-n2", "--bpf-save-baseline=sub/workers.json")
    assert not told.failed
    written = (tmp_path / "sub" / "workers.json").read_text()
    assert set(figures(written)) == set(figures(saved[1]))


def test_two_tests_of_one_key(run: Run) -> None:
    told = run("test_it.py", "test_it.py", "--keep-duplicates", "--bpf-baseline=main", "-k", "look")
    assert told.failed == {"test_look[1]", "test_look[2]"}
    assert told.messages["test_look[1]"].startswith(
        "two tests have the key 'test_it.py::test_look[1]' in baselines"
    )


def test_the_same_measured_twice_is_numbered(run: Run, tmp_path: Path) -> None:
    text = """
def test_twice(bpf_budget):
    bpf_budget(batches(100, 99, 101))
    bpf_budget(batches(200, 199, 201))
"""
    run("--bpf-save-baseline=twice", text=text)
    found = figures((tmp_path / "bpf-baselines" / "twice.json").read_text())
    assert {subject: figure["value"] for (_, subject, _), figure in found.items()} == {
        "prog look": 100,
        "prog look #2": 200,
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "main.json is not JSON .*: restore it, or delete it and save anew"),
        ('{"format": "pytest-bpf results", "schema": 2}', "has schema 2, and this pytest-bpf "),
        ('{"format": "something"}', "main.json is JSON, but no result file of pytest-bpf"),
    ],
)
def test_a_file_that_is_no_baseline(pytester: pytest.Pytester, content: str, said: str) -> None:
    pytester.mkdir("bpf-baselines")
    (pytester.path / SAVED).write_text(content)
    assert re.search(said, refused(pytester.path, "--bpf-baseline=main"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bpf-save-baseline=/proc/none/a.json"], "/proc/none/a.json cannot be written: "),
        (["--bpf-report=json:/proc/a.json"], "/proc/a.json cannot be written: "),
        (["--bpf-claims=/proc/a.md"], "/proc/a.md cannot be written: "),
        (["--bpf-claims=" + "a" * 5000], "--bpf-claims: 'aaa.*' is no path: File name too long"),
        (["--bpf-report=json:" + "a" * 5000], "--bpf-report: 'aaa.*' is no path: File name too"),
        (["--bpf-baseline=" + "a" * 5000], "--bpf-baseline: 'aaa.*' is no path: File name too"),
        (["--bpf-save-baseline=" + "a" * 5000], "save-baseline: 'aaa.*' is no path: File name"),
        (["--bpf-against=" + "a" * 5000], "--bpf-against: 'aaa.*' is no path: File name too long"),
        (["--bpf-report=jsn:a.json"], r"no format 'jsn'; did you mean 'json'\?"),
        (["--bpf-report=json"], r"to which file\? json:FILE"),
        (["--bpf-save-baseline", "--bpf-update-baseline"], "give one of them"),
        (["--bpf-save-baseline", "test_it.py"], "took 'test_it.py' for its name: "),
        (["--bpf-baseline=x", "-o", "bpf_allowed=run_tim: 5%"], "no metric 'run_tim' to change"),
    ],
)
def test_what_cannot_be_understood_or_written(
    pytester: pytest.Pytester, arguments: list[str], said: str
) -> None:
    assert re.search(said, refused(pytester.path, *arguments))
