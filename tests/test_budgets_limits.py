"""Limits as they are written, and figures held against them; no kernel, no privilege."""

from __future__ import annotations

import pytest

from pytest_bpf.budgets.findings import (
    Finding,
    NearLimit,
    NeverRan,
    NotMeasured,
    OverLimit,
    OverTarget,
)
from pytest_bpf.budgets.judge import judge
from pytest_bpf.budgets.limits import Limit, LimitError, parse, parse_line, resolve
from pytest_bpf.budgets.quantity import QuantityError, format_change, format_value, parse_quantity
from pytest_bpf.costs.figures.figure import METRICS, NEVER_RAN, Figure, Unit


def limits(*args: str, **kwargs: object) -> list[Limit]:
    return parse(args, kwargs, "marker")


def one(metric: str, value: object, figure: Figure) -> Finding:
    (finding,) = judge(limits(**{metric: value}), [figure])
    return finding


def certain(metric: str, subject: str, value: float) -> Figure:
    return Figure.certain(metric, subject, value, "kernel")


def between(lower: float, value: float, upper: float, metric: str = "run_time") -> Figure:
    return Figure(metric, "prog count", value, lower, upper, "clock", samples=(value,) * 5)


# -- figures as people write them --------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "unit", "value"),
    [
        ("150ns", "ns", 150),
        ("100 us", "ns", 100_000),
        ("2.5µs", "ns", 2500),
        ("1s", "ns", 1e9),
        ("200MB", "B", 200e6),
        ("64KiB", "B", 65536),
        ("2%", "share", 0.02),
        ("0.1 %", "share", 0.001),
        (4000, "count", 4000),
        ("4,000", "count", 4000),
        ("4k", "count", 4000),
        ("230", "instructions", 230),
        ("50k/s", "1/s", 50_000),
    ],
)
def test_what_people_write(written: object, unit: Unit, value: float) -> None:
    assert parse_quantity(written, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    ("written", "unit", "said"),
    [
        ("2%", "ns", "'2%' is in '%', which is not that of a time; write '150ns'"),
        ("150ns", "share", "is in 'ns', which is not that of a share"),
        (150, "ns", "150 has no unit"),
        (0.02, "share", "0.02 has no unit, which is not that of a share; write '2%', '0.1%'"),
        ("fast", "ns", "'fast' is not a time"),
        ("-5ns", "ns", "'-5ns' is negative"),
        (float("nan"), "count", "nan is not a count"),
        ("1e999", "count", "'1e999' is negative or without end"),
        (True, "count", "True is not a count"),
        (None, "B", "None is not a size"),
        ("100ns 2us", "ns", "is not a time"),
    ],
)
def test_what_is_no_figure(written: object, unit: Unit, said: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_quantity(written, unit)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (84.25, "ns", "84.25 ns"),
        (1_234_567, "ns", "1.235 ms"),
        (5e12, "ns", "5,000 s"),
        (80.8e6, "B", "80.8 MB"),
        (0.0215, "share", "2.15 %"),
        (4000, "count", "4,000"),
        (230, "instructions", "230"),
        (1234.5, "1/s", "1,234/s"),
    ],
)
def test_what_people_read(value: float, unit: Unit, text: str) -> None:
    assert format_value(value, unit) == text


def test_changes_are_told_with_their_share() -> None:
    assert format_change(230, 245, "instructions") == "+15 (+6.52 %)"
    assert format_change(200, 150, "ns") == "-50 ns (-25 %)"
    assert format_change(0.02, 0.03, "share") == "+1 points (+50 %)"
    assert format_change(0, 5, "count") == "+5"
    assert format_change(-0.5, 4.5, "ns") == "+5 ns"


# -- limits ------------------------------------------------------------------------------------


def test_every_metric_can_be_limited() -> None:
    written = {"ns": "1ns", "B": "1B", "share": "1%", "1/s": 1, "count": 1, "instructions": 1}
    for metric in METRICS.values():
        (limit,) = limits(**{metric.name: written[metric.unit]})
        assert limit.metric == metric.name


def test_a_limit_may_be_for_one_program_or_map() -> None:
    assert limits(run_time="1us", program="count")[0].subject == "prog count"
    assert limits(map_memory="1MB", map="stats")[0].subject == "map stats"


def test_a_whole_agent_has_the_guide_s_targets_as_limits() -> None:
    guide = {limit.metric: limit.target for limit in limits("guide")}
    agent = {limit.metric: (limit.target, limit.alarm) for limit in limits("agent")}
    assert set(agent) == {"cpu", "memory", "loss", "latency_p99"}
    assert agent == {metric: (None, guide[metric]) for metric in agent}


def test_the_guide_has_targets_and_alarms() -> None:
    guide = {limit.metric: (limit.target, limit.alarm) for limit in limits("guide")}
    assert guide["cpu"] == (0.02, 0.05)
    assert guide["memory"] == (200e6, 500e6)
    assert guide["loss"] == (0.001, None)
    assert guide["latency_p99"] == (100_000, None)
    assert (guide["lookup"], guide["update"]) == ((100, None), (200, None))


def test_a_keyword_goes_before_the_profile() -> None:
    found = {limit.metric: limit for limit in limits("guide", cpu="3%")}
    assert (found["cpu"].target, found["cpu"].alarm) == (None, 0.03)
    assert found["memory"].alarm == 500e6


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {"run_tim": "1us"}, "there is no metric 'run_tim' to limit; did you mean 'run_time'"),
        (("giude",), {}, "there is no budget profile 'giude'; did you mean 'guide'?"),
        ((3,), {}, "there is no budget profile 3"),
        ((), {"cpu": "150ns"}, "cpu: '150ns' is in 'ns', which is not that of a share"),
        ((), {"run_time": "-1ns"}, "run_time: '-1ns' is negative"),
        ((), {"run_time": "0ns"}, "run_time='0ns' is below every figure: give more than 0"),
        ((), {"loss": "100%"}, "loss='100%' says nothing"),
        ((), {"events_per_second": 0}, "events_per_second=0 says nothing"),
        ((), {"cpu": ("5%", "2%")}, "the target 5 % would be missed only after the alarm 2 %"),
        ((), {"cpu": ("1%", "2%", "3%")}, "a limit is a figure, or a pair"),
        ((), {"cpu": (None, None)}, "a limit is a figure, or a pair"),
        ((), {"cpu": "1%", "program": "a", "map": "b"}, "for a program or a map, not for both"),
        ((), {"cpu": "1%", "program": ""}, "program='': a budget's program is its name"),
        ((), {"program": "count"}, "a budget without a limit"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    args: tuple[object, ...], kwargs: dict[str, object], said: str
) -> None:
    with pytest.raises(LimitError) as caught:
        parse(args, kwargs, "marker")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_of_the_ini_file_and_the_command_line() -> None:
    assert parse_line("run_time = 150ns", "ini") == parse([], {"run_time": "150ns"}, "ini")
    assert parse_line("cpu=2%, 5%", "ini") == parse([], {"cpu": ("2%", "5%")}, "ini")
    assert parse_line("guide", "command line") == parse(["guide"], {}, "command line")
    assert parse_line("verified_insns = 4,000", "ini")[0].alarm == 4000
    with pytest.raises(LimitError, match="did you mean 'run_time'"):
        parse_line("runtime = 150ns", "ini")


def test_the_first_of_a_metric_and_subject_holds() -> None:
    marker, ini = limits(cpu="1%"), parse_line("cpu = 9%", "ini")
    assert resolve([*marker, *ini]) == marker


# -- judging -----------------------------------------------------------------------------------


def test_a_certain_figure_needs_no_tolerance() -> None:
    assert one("verified_insns", 100, certain("verified_insns", "prog a", 100)).verdict == "pass"
    broken = one("verified_insns", 100, certain("verified_insns", "prog a", 101))
    assert isinstance(broken, OverLimit)
    assert broken.headline == "prog a: verified_insns 101 breaks its limit of 100: +1 (+1 %)"


def test_an_uncertain_figure_fails_only_when_all_of_it_is_beyond() -> None:
    assert one("run_time", "150ns", between(90, 100, 150)).verdict == "pass"
    assert one("run_time", "150ns", between(151, 160, 170)).verdict == "fail"
    for undecided in (between(140, 149, 151), between(149, 160, 170)):
        finding = one("run_time", "150ns", undecided)
        assert isinstance(finding, NearLimit)
        assert finding.verdict == "inconclusive"
        assert "cannot be told from its limit, run_time 150 ns" in finding.headline


def test_a_figure_read_in_one_go_fails_from_twice_the_limit_on() -> None:
    def read(value: float) -> Figure:
        return Figure("run_time", "prog count", value, None, None, "clock")

    assert one("run_time", "150ns", read(150)).verdict == "pass"
    undecided = one("run_time", "150ns", read(299))
    assert undecided.verdict == "inconclusive"
    assert undecided.headline.endswith("measure it in batches, by bpf_measure")
    assert one("run_time", "150ns", read(301)).verdict == "fail"


def test_more_is_better_for_some() -> None:
    fast, slow = (certain("events_per_second", "", rate) for rate in (1000, 999))
    assert one("events_per_second", "1k/s", fast).verdict == "pass"
    broken = one("events_per_second", "1k/s", slow)
    assert broken.headline == "events_per_second 999/s breaks its limit of 1,000/s: -1/s (-0.1 %)"
    read = Figure("events_per_second", "", 600, None, None, "clock")
    assert one("events_per_second", "1k/s", read).verdict == "inconclusive"


def test_a_missed_target_is_a_warning_and_a_passed_alarm_a_failure() -> None:
    def cpu(share: float) -> Finding:
        return one("cpu", ("2%", "5%"), certain("cpu", "", share))

    assert [cpu(share).verdict for share in (0.02, 0.05, 0.051)] == ["pass", "warning", "fail"]
    missed = cpu(0.03)
    assert isinstance(missed, OverTarget)
    assert missed.headline == "cpu 3 % misses its target of 2 %: +1 points (+50 %)"


def test_a_limit_without_a_subject_is_for_each_that_has_the_metric() -> None:
    figures = [certain("verified_insns", f"prog {name}", n) for name, n in (("a", 5), ("b", 50))]
    findings = judge(limits(verified_insns=10), figures)
    assert [(f.subject, f.verdict) for f in findings] == [("prog a", "pass"), ("prog b", "fail")]


def test_a_limit_for_the_whole_does_not_judge_its_parts() -> None:
    figures = [certain("cpu", "", 0.01), certain("cpu", "prog a", 0.01)]
    assert [f.subject for f in judge(limits(cpu="2%"), figures)] == [""]


def test_a_limit_for_one_goes_before_that_for_all() -> None:
    figures = [certain("verified_insns", f"prog {name}", 50) for name in "ab"]
    found = judge([*limits(verified_insns=60), *limits(verified_insns=40, program="b")], figures)
    assert [(f.subject, f.verdict) for f in found] == [("prog a", "pass"), ("prog b", "fail")]


def test_a_program_of_one_of_two_objects() -> None:
    figures = [
        certain("verified_insns", f"prog {o}.bpf.c:count", n) for o, n in (("x", 5), ("y", 9))
    ]
    assert len(judge(limits(verified_insns=10, program="count"), figures)) == 2
    (found,) = judge(limits(verified_insns=10, program="y.bpf.c:count"), figures)
    assert found.subject == "prog y.bpf.c:count"


def test_what_is_missing_of_the_whole_hides_no_part() -> None:
    closed = Figure.missing("run_time", "", "look.bpf.c was closed", "kernel")
    findings = judge(limits(run_time="150ns"), [closed, between(151, 160, 170)])
    assert [finding.verdict for finding in findings] == ["fail", "not measured"]


def test_a_program_that_never_ran_fails() -> None:
    idle = Figure.missing("run_time", "prog count", NEVER_RAN, "clock")
    finding = one("run_time", "150ns", idle)
    assert isinstance(finding, NeverRan)
    assert finding.verdict == "fail"
    assert finding.headline.startswith("prog count: never ran, so its limit, run_time 150 ns, was")


def test_one_of_several_that_never_ran_is_told() -> None:
    idle = Figure.missing("run_time", "prog other", NEVER_RAN, "clock")
    findings = judge(limits(run_time="150ns"), [between(90, 100, 110), idle])
    assert [f.verdict for f in findings] == ["pass", "not measured"]
    (named,) = judge(limits(run_time="150ns", program="other"), [between(90, 100, 110), idle])
    assert named.verdict == "fail"


def test_a_name_that_is_not_there_fails() -> None:
    figures = [certain("verified_insns", f"prog x.bpf.c:{name}", 5) for name in ("count", "drop")]
    (finding,) = judge(limits(run_time="1us", program="cuont"), figures)
    assert finding.verdict == "fail"
    assert finding.headline == (
        "there is no program 'cuont' in this test to limit; did you mean 'count'?"
    )
    (finding,) = judge(limits(map_memory="1MB", map="stats"), figures)
    assert finding.headline == "there is no map 'stats' in this test to limit; there is none"


def test_what_is_not_measured_says_why() -> None:
    missing = Figure.missing("loss", "", "no ring or perf buffer was read", "kernel")
    finding = one("loss", "0.1%", missing)
    assert isinstance(finding, NotMeasured)
    assert finding.headline == (
        "loss not measured: no ring or perf buffer was read (limit: loss 0.1 %)"
    )
    (nothing,) = judge(limits(overhead="5%"), [])
    assert nothing.verdict == "not measured"
    assert (
        "nothing in this test measures it; bpf_overhead does (limit: overhead 5 %)"
        in nothing.headline
    )


def test_limits_for_all_tests_judge_only_what_is_there() -> None:
    for origin in ("ini", "command line"):
        assert judge(parse([], {"overhead": "5%"}, origin), []) == []
        idle = Figure.missing("run_time", "prog count", NEVER_RAN, "clock")
        assert judge(parse([], {"run_time": "5ns"}, origin), [idle]) == []


def test_of_a_time_and_a_count_of_instructions_one_is_judged() -> None:
    both = limits(run_time="150ns", instructions=300)
    native = [between(90, 100, 110), Figure.missing("instructions", "", "no exact mode", "exact")]
    assert [f.metric for f in judge(both, native)] == ["run_time"]
    exact = [Figure.certain("instructions", "prog count", 230, "exact")]
    assert [f.metric for f in judge(both, exact)] == ["instructions"]
    (alone,) = judge(limits(instructions=300), native)
    assert alone.verdict == "not measured"


def test_details_say_more_with_more_verbosity() -> None:
    finding = one("run_time", "150ns", between(151, 160, 170))
    assert finding.details(0) == ["limit of the marker", "between 151 ns and 170 ns"]
    assert finding.details(1)[-1] == "by the instrument 'clock', 5 batches"
    assert finding.details(2)[-1] == "batches: 160 160 160 160 160"
