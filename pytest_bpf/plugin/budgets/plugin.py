"""Budgets and baselines on pytest's side: what is found of a test fails that test.

A test is measured from its setup to the end of its call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from pytest_bpf.budgets import limits, results
from pytest_bpf.budgets.baseline import Baseline, by_key, compare_figures
from pytest_bpf.budgets.change import ATTEMPTS
from pytest_bpf.budgets.compare import AcceptedChange
from pytest_bpf.budgets.confirmation import is_disturbed, needs_confirmation, same_as_before, settle
from pytest_bpf.budgets.findings import Finding, as_dict
from pytest_bpf.budgets.judge import judge
from pytest_bpf.budgets.quantity import format_value
from pytest_bpf.budgets.tolerance import parse_lines
from pytest_bpf.costs.figures.figure import METRICS, Figure
from pytest_bpf.costs.figures.measurements import figures_of
from pytest_bpf.costs.total import sum_costs
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys.release import release
from pytest_bpf.plugin.budgets import against
from pytest_bpf.plugin.budgets.against import BEFORE
from pytest_bpf.plugin.budgets.decision import decide
from pytest_bpf.plugin.budgets.trial import (
    TRIAL,
    Trial,
    digests,
    loaders,
    measures,
    objects,
    uses_programs,
)
from pytest_bpf.plugin.matrix import names
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import EARLIER, MEASUREMENTS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from pytest_bpf.budgets.limits import Limit
    from pytest_bpf.compile.trees import Tree
    from pytest_bpf.costs.workload import Costs
    from pytest_bpf.objects import Object

NAME = "bpf-budgets"
"""Under which the plugin is registered."""

RESULTS = "bpf_results"
"""The attribute of a test's report that has its figures and findings, as plain values."""


LOADS = pytest.StashKey["dict[tuple[str, str], list[Finding]]"]()
"""What was found in each load of a test, of figures that it takes several for."""


TRIES = pytest.StashKey[int]()
"""How often a test was loaded on a machine that was too busy to make a baseline of it."""


def register(config: pytest.Config) -> None:
    """Judge this session's tests; raises `pytest.UsageError` for what cannot be understood."""
    if config.pluginmanager.has_plugin(NAME):
        return
    tree = against.find(config)
    try:
        default = default_limits(config)
        baseline = open_baseline(config)
    except BpfError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(BudgetPlugin(config, default, baseline, tree), NAME)


def default_limits(config: pytest.Config) -> list[Limit]:
    """Return the limits for all tests: those of the command line before those of the ini file."""
    lines = settings(config).limits
    return limits.resolve(limit for line in lines for limit in limits.parse_line(*line))


def open_baseline(config: pytest.Config) -> Baseline | None:
    """Return the baseline that this session compares with; None when it compares with none."""
    chosen = settings(config).baselines
    if not chosen.compare:
        return None
    return Baseline.open(
        chosen.compare,
        parse_lines(settings(config).allowed),
        require=chosen.require,
        accept=chosen.update,
    )


def marker_limits(item: pytest.Item) -> list[Limit]:
    """Return the limits of an item's markers, the closest first; raises `LimitError`."""
    return [
        limit
        for mark in item.iter_markers("bpf_budget")
        for limit in limits.parse(mark.args, mark.kwargs, "marker")
    ]


class BudgetPlugin:
    """Measures and judges the tests of a process."""

    def __init__(
        self,
        config: pytest.Config,
        default: Sequence[Limit],
        baseline: Baseline | None,
        earlier: Tree | None,
    ) -> None:
        self._config = config
        self._default = default
        self._baseline = baseline
        self._earlier = earlier
        self._saves = bool(settings(config).baselines.save)
        self._tests: dict[str, pytest.Item] = {}
        self._current: Trial | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        """Run a test again, loaded anew, until its times can be relied on; report once."""
        if not (self._baseline or self._saves or self._earlier) or not uses_programs(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        tree = self._earlier if measures(item) else None
        if tree and "bpf_module" in item.fixturenames:  # type: ignore[attr-defined]
            nextitem = None  # what the module has loaded is to be loaded anew
        while True:
            if tree:
                against.run_before(item, nextitem, tree)
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            trial = item.stash.get(TRIAL, None)
            if (
                trial is None
                or not trial.needs_rerun
                or not all(report.passed for report in reports)
            ):
                break
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin, with what the module has loaded already."""
        if uses_programs(item):
            trial = Trial(limits.resolve([*marker_limits(item), *self._default]))
            item.stash[TRIAL], item.stash[MEASUREMENTS] = trial, []
            self._current = trial
            for obj in objects(item):
                trial.watch(obj)
        return (yield)

    def pytest_bpf_object_loaded(self, obj: Object) -> None:
        """Measure what a test loads from here on: compiling it is no time of the workload."""
        if self._current is not None:
            self._current.watch(obj)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """At the end of the call, judge; what is broken fails the test."""
        trial = item.stash.get(TRIAL, None)
        if trial is None:
            return (yield)
        try:
            result = yield
        except BaseException as error:
            trial.findings += getattr(error, "findings", ())
            self._end(trial, failed=True)
            raise
        self._measured(item, trial)
        if EARLIER in self._config.stash:
            trial.passed = True
            return result
        findings = judge(trial.limits, trial.figures.values())
        trial.goes_into_baseline = bool(
            item.get_closest_marker("bpf_budget") or item.stash[MEASUREMENTS]
        )
        before = item.stash.get(BEFORE, None)
        baseline = before.baseline if before else self._baseline
        if baseline and trial.goes_into_baseline:
            same = bool(
                before and before.object_digests and before.object_digests == trial.object_digests
            )
            findings += self._compared(item, trial, baseline, same_objects=same)
        if (
            self._saves
            and trial.goes_into_baseline
            and any(map(is_disturbed, trial.figures.values()))
        ):
            item.stash[TRIES] = item.stash.get(TRIES, 0) + 1
            trial.needs_rerun = item.stash[TRIES] < ATTEMPTS
        if trial.needs_rerun:
            return result
        try:
            decide(item, findings)
        except BaseException:  # the figures of a failed test are not saved
            findings = [f.change if isinstance(f, AcceptedChange) else f for f in findings]
            raise
        finally:
            trial.findings += findings
        trial.passed = True
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put figures and findings into the report of the call."""
        report = yield
        trial = item.stash.get(TRIAL, None)
        if trial is None:
            return report
        if report.when == "setup" and not report.passed:
            self._end(trial, failed=True)
        if report.when == "call":
            setattr(report, RESULTS, _as_plain(trial, self._test(item)))
        if report.when == "teardown":
            report.user_properties += _properties(trial.figures.values())
        return report

    def _end(self, trial: Trial, *, failed: bool = False) -> list[tuple[str, Costs]]:
        self._current = None
        return trial.end(failed=failed)

    def _measured(self, item: pytest.Item, trial: Trial) -> None:
        """Keep what the test measured by itself, and of the rest what it cost as a whole."""
        own = list(figures_of(item.stash[MEASUREMENTS]))
        measured = {(figure.metric, figure.subject) for figure in own if figure.value is not None}
        figures = own
        if self._earlier:
            trial.object_digests = digests(trial.spans)
        for source, figure in sum_costs(self._end(trial)):
            if source:
                trial.sources[figure.subject] = source
            if (figure.metric, figure.subject) not in measured:
                figures.append(figure)
        if trial.why_not:
            figures += [
                Figure.missing(limit.metric, limit.subject, trial.why_not, "kernel")
                for limit in trial.limits
            ]
        test = self._test(item)
        if self._baseline or self._saves or self._earlier:
            self._claim(test, item)
        compilers = {str(compiler) for loader in loaders(item) for compiler in loader.compilers}
        trial.figures = by_key(test, ", ".join(sorted(compilers)), figures)

    def _compared(
        self, item: pytest.Item, trial: Trial, baseline: Baseline, *, same_objects: bool
    ) -> list[Finding]:
        """Compare each figure; set ``needs_rerun`` when a time must be measured once more."""
        loads = item.stash.setdefault(LOADS, {})
        findings = []
        for finding in compare_figures(baseline, trial.figures):
            about = (finding.metric, finding.subject)
            if same_objects:
                findings.append(same_as_before(finding))
            elif about in loads or (needs_confirmation(finding) and not baseline.accept):
                loads.setdefault(about, []).append(finding)
                settled = settle(loads[about])
                trial.needs_rerun |= settled is None
                findings.append(settled or finding)
            else:
                findings.append(finding)
        return findings

    def _test(self, item: pytest.Item) -> str:
        """Return the test's id in baselines: its node id without the kernel."""
        test = item.nodeid
        for name in self._config.stash.get(names.NAMES, []):
            test = names.strip_kernel(test, name)
        return test

    def _claim(self, test: str, item: pytest.Item) -> None:
        """Take a test's key for ``item``; fail the test when another one has it."""
        if self._tests.setdefault(test, item) is not item:
            pytest.fail(
                f"two tests have the key {test!r} in baselines, and {self._tests[test].nodeid} ran "
                "before: give one of them another name, or run it once",
                pytrace=False,
            )


def _properties(figures: Iterable[Figure]) -> list[tuple[str, object]]:
    """Return figures as JUnit's file has them: ``("bpf run_time of prog count", "84.2 ns")``."""
    return [
        (
            f"bpf {figure.metric}{figure.subject and f' of {figure.subject}'}",
            format_value(figure.value, METRICS[figure.metric].unit),
        )
        for figure in figures
        if figure.value is not None
    ]


def _as_plain(trial: Trial, test: str) -> dict[str, Any]:
    """Return what the controller needs, of types that travel between processes."""
    kernel = release()
    return {
        "test": test,
        "goes_into_baseline": trial.goes_into_baseline and trial.passed,
        "figures": results.format_results(results.Results(trial.figures)),
        "findings": [{"test": test, "kernel": kernel, **as_dict(f)} for f in trial.findings],
        "sources": dict(trial.sources),
    }
