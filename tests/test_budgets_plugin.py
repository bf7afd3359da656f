"""The marker and the fixture ``bpf_budget`` in sessions of their own, on the running kernel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.budgets import results
from tests.budget_sessions import Session, session_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.bpf_requires(attach="xdp", map_type="ringbuf")

ALL = """
# -- the marker alone

@budget(run_time="1ns", program="look")
def test_dear(bpf): drive(bpf)

@budget(run_time="1s", verified_insns=1000, missed=0, cpu="400%", memory="1GB", map_memory="1MB")
def test_cheap(bpf): drive(bpf)

@budget(run_time="1s", program="other")
def test_idle(bpf): drive(bpf)

@budget(run_time="1s")
def test_all_idle(bpf): bpf.load("look.bpf.c")

@budget(run_time="1s", program="lok")
def test_misspelt(bpf): drive(bpf)

@budget(map_memory="4kB", map="events")
def test_large(bpf): drive(bpf)

@budget(run_time="1s", program="look")
def test_closed(bpf): drive(bpf).close()

# -- what the test measures itself

@budget(run_time="1us", program="look")
def test_broken(bpf, bpf_budget):
    drive(bpf)
    bpf_budget(batches(1200, 1100, 1300))

@budget(run_time="1us", program="look")
def test_undecided(bpf_budget): bpf_budget(batches(1050, 900, 1300))

@budget(run_time="1ns", instructions=1, program="look")
def test_measured(bpf, bpf_measure):
    program = bpf.load("look.bpf.c").programs["look"]
    bpf_measure(program, lambda: program.test_run(bytes(64), repeat=10), batches=5)

@budget(run_time="1ns", program="look")
def test_costs(bpf, bpf_costs):
    obj = bpf.load("look.bpf.c")
    with bpf_costs(obj):
        obj.programs["look"].test_run(bytes(64), repeat=10)

# -- the fixture

def test_fixture(bpf_budget):
    assert [f.verdict for f in bpf_budget(batches(5, 4, 6), run_time="10ns")] == ["pass"]
    with pytest.raises(BudgetError, match="5 ns breaks its limit of 3 ns"):
        bpf_budget(batches(5, 4, 6), run_time="3ns")
    with pytest.raises(BudgetError, match="no program 'other' in this test"):
        bpf_budget(batches(5, 4, 6), run_time="3ns", program="other")
    with pytest.raises(Exception, match="int is nothing measured"):
        bpf_budget(5, run_time="3ns")

def test_fixture_fails(bpf_budget):
    bpf_budget([batches(5, 4, 6), batches(8, 7, 9, "other")], run_time="6.5ns")

# -- events

@budget(loss="0%", events_per_second=1, events=1)
def test_reads(bpf):
    obj = bpf.load("look.bpf.c")
    with obj.maps["events"].events() as events:
        obj.programs["look"].test_run(bytes(64), repeat=10)
        assert len(events.read(count=10)) == 10

@budget(loss="0%")
def test_full(bpf):
    obj = bpf.load("look.bpf.c")
    events = obj.maps["events"].events()
    obj.programs["look"].test_run(bytes(64), repeat=1000)
    events.read()

@budget(loss="0%")
def test_nobody_reads(bpf): drive(bpf)

# -- the guide

@budget("guide")
@pytest.mark.parametrize("percent", [1, 3, 6])
def test_guide(bpf_budget, percent):
    bpf_budget(Figure.certain("cpu", "", percent / 100, "clock"))

# -- classes, modules, several objects

@budget(verified_insns=1000)
class TestClass:
    def test_by_class(self, bpf): drive(bpf)

    @budget(verified_insns=1)
    def test_by_itself(self, bpf): drive(bpf)

@pytest.fixture(scope="module")
def look(bpf_module): return bpf_module.load("look.bpf.c").programs["look"]

@budget(run_cnt=10, program="look")
@pytest.mark.parametrize("runs", [9, 10, 11])
def test_module(look, runs): look.test_run(bytes(64), repeat=runs)

@budget(verified_insns=1, program="again.bpf.c:look")
def test_two_objects(bpf):
    drive(bpf)
    drive(bpf, source="again.bpf.c")

# -- tests that end otherwise

@budget(run_time="1ns")
def test_wrong(bpf):
    drive(bpf)
    assert 1 == 2

@budget(run_time="1ns")
def test_skipped(bpf): pytest.skip("not today")

@pytest.mark.xfail(reason="too dear", strict=True)
@budget(run_time="1ns", program="look")
def test_expected(bpf): drive(bpf)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The session of all the tests above, run once."""
    return session_in(tmp_path_factory.mktemp("budgets"), ALL, "-v")


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., Session]:
    return lambda text, *args: session_in(tmp_path, text, *args)


def test_the_marker_alone_measures_and_fails_the_test_itself(outcome: Session) -> None:
    assert re.match(
        r"prog look: run_time [\d.,]+ [nu]s breaks its limit of 1 ns: \+.* \(\+.* %\)\n"
        r"    limit of the marker\n",
        outcome.messages["test_dear"],
    )
    assert outcome.line("test_dear").startswith("fail test_it.py::test_dear prog look run_time ")
    assert "test_cheap" not in outcome.failed
    assert re.match("map events: map_memory .* breaks its .* 4 kB", outcome.messages["test_large"])


def test_a_program_that_never_ran_fails(outcome: Session) -> None:
    assert outcome.messages["test_idle"].startswith(
        "prog other: never ran, so its limit, run_time 1"
    )
    assert outcome.messages["test_all_idle"].startswith("no program: never ran, so its limit")
    assert "not measured test_it.py::test_cheap prog other run_time not measured: never ran" in (
        "\n".join(outcome.section)
    )


def test_a_name_that_is_not_there_fails(outcome: Session) -> None:
    assert outcome.messages["test_misspelt"].startswith(
        "there is no program 'lok' in this test to limit; did you mean 'look'?"
    )


def test_an_object_that_the_test_closed_is_not_measured(outcome: Session) -> None:
    assert "run_time not measured: look.bpf.c was closed before the end of" in (
        outcome.line("test_closed")
    )


def test_what_the_test_measures_goes_before_what_was_read_in_one_go(outcome: Session) -> None:
    assert outcome.messages["test_broken"] == (
        "prog look: run_time 1.2 us breaks its limit of 1 us: +200 ns (+20 %)\n"
        "    limit of the marker\n"
        "    between 1.1 us and 1.3 us\n"
        "    by the instrument 'clock', 9 batches"
    )
    assert outcome.line("test_undecided").startswith("inconclusive ")
    assert "test_undecided" not in outcome.failed
    assert "5 batches" in outcome.messages["test_measured"]
    assert "instructions" not in outcome.messages["test_measured"]
    assert "read in one go" in outcome.messages["test_costs"]


def test_the_fixture_judges_at_once(outcome: Session) -> None:
    assert "test_fixture" not in outcome.failed
    assert "BudgetError: prog other: run_time 8 ns breaks" in outcome.messages["test_fixture_fails"]
    assert "bpf_budget([batches(5, 4, 6)" in outcome.messages["test_fixture_fails"]


def test_losses_are_known_from_the_test_s_own_readers(outcome: Session) -> None:
    assert not outcome.failed & {"test_reads", "test_full", "test_nobody_reads"}
    assert "loss not measured: ring buffer 'events' was full" in outcome.line("test_full")
    assert "loss not measured: no ring or perf buffer was read" in outcome.line("test_nobody_reads")
    assert outcome.properties["test_reads"]["bpf events of map events"] == "10"


def test_the_guide_warns_of_a_missed_target_and_fails_beyond_the_alarm(outcome: Session) -> None:
    assert {name for name in outcome.failed if "guide" in name} == {"test_guide[6]"}
    assert outcome.messages["test_guide[6]"].startswith(
        "cpu 6 % breaks its limit of 5 %: +1 points (+20 %)"
    )
    assert "BudgetWarning: cpu 3 % misses its target of 2 %: +1 points (+50 %)" in outcome.output
    assert "warning test_it.py::test_guide[3] - cpu 3 %, target 2 %" in "\n".join(outcome.section)


def test_marks_add_up_the_closest_first(outcome: Session) -> None:
    assert "test_by_class" not in outcome.failed
    assert "verified_insns" in outcome.messages["test_by_itself"]


def test_objects_of_a_module_are_judged_by_what_each_test_made_them_do(outcome: Session) -> None:
    assert {name for name in outcome.failed if "module" in name} == {"test_module[11]"}
    assert outcome.messages["test_module[11]"].startswith(
        "prog look: run_cnt 11 breaks its limit of 10: +1 (+10 %)"
    )


def test_programs_of_one_name_are_told_apart(outcome: Session) -> None:
    message = outcome.messages["test_two_objects"]
    assert message.startswith("prog again.bpf.c:look: verified_insns ")
    assert "prog look.bpf.c:look" not in message


def test_a_test_that_ends_otherwise_is_not_judged(outcome: Session) -> None:
    assert "assert 1 == 2" in outcome.messages["test_wrong"]
    assert "never ran" not in outcome.messages["test_wrong"]
    assert "breaks its limit" not in outcome.messages["test_wrong"]
    assert not outcome.failed & {"test_skipped", "test_expected"}
    assert "1 skipped, 1 xfailed" in outcome.output


def test_figures_are_properties_in_junit_s_file(outcome: Session) -> None:
    properties = outcome.properties["test_dear"]
    assert properties["bpf run_cnt of prog look"] == "100"
    assert re.fullmatch(r"[\d.,]+ [nu]s", properties["bpf run_time of prog look"])


def test_strict_fails_what_is_not_decided(session: Callable[..., Session]) -> None:
    outcome = session(
        """
@budget(run_time="1us", program="look")
def test_undecided(bpf_budget): bpf_budget(batches(1050, 900, 1300))

@budget(overhead="5%")
def test_unmeasured(bpf): drive(bpf)
""",
        "--bpf-strict",
    )
    assert outcome.messages["test_undecided"].startswith(
        "--bpf-strict: prog look: run_time 1.05 us lies between 900 ns and 1.3 us: it cannot "
    )
    assert outcome.messages["test_unmeasured"].startswith("--bpf-strict: overhead not measured: ")


def test_marker_before_command_line_before_ini(
    session: Callable[..., Session], tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nbpf_budget =\n    verified_insns = 1\n    overhead = 1%\n"
    )
    text = """
@budget(verified_insns=1000)
def test_marker(bpf): drive(bpf)

def test_none(bpf): drive(bpf)

def test_without_bpf(): pass
"""
    outcome = session(text)
    assert outcome.failed == {"test_none"}
    assert "verified_insns" in outcome.messages["test_none"]
    assert "limit of the ini" in outcome.messages["test_none"]
    assert not session(text, "--bpf-budget", "verified_insns=2000").failed


def test_mistakes_are_refused_at_collection(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.bpf_budget(run_tme="1us")
        def test_x(bpf): assert 0
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: test_it.py::test_x: there is no metric 'run_tme' to limit; did you mean 'run_*"]
    )
    result = pytester.runpytest_subprocess("--bpf-budget", "cpu=fast")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: cpu: 'fast' is not a share; write '2%', '0.1%'"])


def test_with_workers(session: Callable[..., Session]) -> None:
    pytest.importorskip("xdist")
    outcome = session(
        """
@budget(run_time="1ns", program="look")
@pytest.mark.parametrize("n", range(2))
def test_dear(bpf, n): drive(bpf)
""",
        "-n2",
    )
    assert len(outcome.failed) == 2
    assert sum(line.startswith("fail ") for line in outcome.section) == 2


def test_a_test_that_is_tried_again_counts_once(tmp_path: Path) -> None:
    told = session_in(
        tmp_path,
        """
@budget(verified_insns=1)
def test_again(bpf): drive(bpf)

@pytest.mark.bpf_claim("is cheap", row=1)
def test_claim(bpf_claim):
    bpf_claim(True, before=9, after=7, unit="instructions")
    assert 0
""",
        *("--reruns=1", "--bpf-report=json:all.json"),
    )
    assert "2 rerun" in told.output
    assert len([line for line in told.section if "test_again" in line]) == 2, told.output
    kept = results.read(tmp_path / "all.json")
    broken = [finding for finding in kept.findings if finding["verdict"] == "fail"]
    assert {finding["metric"] for finding in broken} == {"verified_insns"}
    assert len({finding["subject"] for finding in broken}) == len(broken)
    assert len(kept.claims) == 1
