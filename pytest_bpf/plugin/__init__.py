"""pytest's entry point: hooks only, each a few lines that call a station."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import BpfError, CompileError, UnavailableError
from pytest_bpf.plugin import hookspecs, options
from pytest_bpf.plugin.checks import check_marker_names, check_options
from pytest_bpf.plugin.fixtures import (
    _bpf_drop_reasons,
    _bpf_leaks,
    _bpf_session,
    bpf_agent,
    bpf_budget,
    bpf_cgroup,
    bpf_claim,
    bpf_costs,
    bpf_drops,
    bpf_equivalent,
    bpf_fuzz,
    bpf_line_costs,
    bpf_lines,
    bpf_lint,
    bpf_measure,
    bpf_netns,
    bpf_netns_pair,
    bpf_overhead,
    bpf_pins,
    bpf_places,
    bpf_places_module,
    bpf_places_session,
    bpf_statistics,
    bpf_syscalls,
    bpf_traffic,
    bpf_verifier_costs,
    bpf_worst,
)
from pytest_bpf.plugin.imports import import_plainly
from pytest_bpf.plugin.items import counts, uses_bpf
from pytest_bpf.plugin.loading import _bpf_c_object, bpf, bpf_module
from pytest_bpf.plugin.settings import apply, c_files, counts_lines, has_c_tests, settings
from pytest_bpf.plugin.skips import reason_of, unavailable
from pytest_bpf.plugin.stash import (
    AGENTS,
    CLAIM_CHECK,
    CLAIM_PROPERTY,
    COSTS,
    COSTS_PROPERTY,
    LINT,
    LINT_PROPERTY,
    NOTES,
    TRACED,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from pytest_bpf.plugin.requirements import Requirements

__all__ = [
    "_bpf_c_object",
    "_bpf_drop_reasons",
    "_bpf_leaks",
    "_bpf_session",
    "bpf",
    "bpf_agent",
    "bpf_budget",
    "bpf_cgroup",
    "bpf_claim",
    "bpf_costs",
    "bpf_drops",
    "bpf_equivalent",
    "bpf_fuzz",
    "bpf_line_costs",
    "bpf_lines",
    "bpf_lint",
    "bpf_measure",
    "bpf_module",
    "bpf_netns",
    "bpf_netns_pair",
    "bpf_overhead",
    "bpf_pins",
    "bpf_places",
    "bpf_places_module",
    "bpf_places_session",
    "bpf_statistics",
    "bpf_syscalls",
    "bpf_traffic",
    "bpf_verifier_costs",
    "bpf_worst",
]

INFO_OPTIONS = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow")
"""Options with which pytest tells something and runs no test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--bpf-*`` and ``bpf_*``."""
    options.add(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks of `pytest_bpf.plugin.hookspecs`."""
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Tell other plugins how the tests will run; import what follows without delay."""
    import_plainly(early_config)
    known = early_config.known_args_namespace
    kernels = options.ask_for_kernels(early_config)
    if kernels or known.bpf_shell:
        from pytest_bpf.plugin import early

        early.look_ahead(early_config, on_kernels=kernels)
    yield


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Get the kernels ready, when tests are to run on others than the running one."""
    if hasattr(config, "workerinput"):
        if "bpf_relay" in config.workerinput:
            from pytest_bpf.plugin.matrix import session as matrix

            matrix.join(config)
    elif not _only_informs(config) and settings(config).chooses_kernels:
        from pytest_bpf.plugin.matrix import session as matrix

        matrix.prepare(config)
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and what the session's settings need."""
    options.add_markers(config)
    if _only_informs(config):
        return
    is_worker = hasattr(config, "workerinput")
    if not is_worker:
        check_options(config)
    apply(config)
    c_files(config)  # a pattern that names no file is an error before anything runs
    chosen = settings(config)
    if chosen.chooses_kernels:
        from pytest_bpf.plugin.matrix import session as matrix

        matrix.register(config)
    if chosen.judges_every_test:
        from pytest_bpf.plugin.budgets import plugin

        plugin.register(config)
    if (chosen.judges_every_test or chosen.claims) and not is_worker:
        from pytest_bpf.plugin.budgets import writer

        writer.register(config)
    if chosen.annotate:
        from pytest_bpf.plugin.coverage import annotating

        annotating.register(config)
    elif counts_lines(config):
        from pytest_bpf.plugin.coverage import session as coverage

        coverage.register(config)
    if chosen.rerun_traced:
        from pytest_bpf.plugin.artifacts import rerunning

        rerunning.register(config)
    if chosen.artifacts and not is_worker:
        from pytest_bpf.plugin.artifacts import folder

        folder.register(config, chosen.artifacts)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect tests written in C: ``*.test.bpf.c``, and what ``bpf_c_tests`` names."""
    if file_path.suffix != ".c" or not has_c_tests(parent.config, file_path):
        return None
    from pytest_bpf.plugin.collect.items import CFile

    file: pytest.Collector = CFile.from_parent(parent, path=file_path)
    return file


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a marker that cannot be understood before anything runs."""
    check_marker_names(config, {mark.name for item in items for mark in item.iter_markers()})
    for item in items:
        if item.get_closest_marker("bpf_budget"):
            _budget(item)
        if item.get_closest_marker("bpf_requires"):
            _requirements(item)
        if item.get_closest_marker("bpf_claim"):
            from pytest_bpf.plugin.budgets import claim_marker

            claim_marker.claim_of(item)
    if any(map(_has_budget, items)):
        from pytest_bpf.plugin.budgets import plugin

        plugin.register(config)


def pytest_report_collectionfinish(
    config: pytest.Config, items: list[pytest.Item]
) -> list[str] | str:
    """Say in one line what the environment offers, when a test asks for it."""
    if config.get_verbosity() < 0 or not any(map(uses_bpf, items)):
        return []
    from pytest_bpf.reports.header import header

    return header(settings(config).cc)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test whose requirements are not met, before any fixture is made."""
    if item.get_closest_marker("bpf_requires"):
        missing = _requirements(item).missing()
        if missing:
            unavailable(item, "requires " + "; ".join(missing))
    watching = "pytest_bpf.plugin.artifacts.watching" in sys.modules
    chosen = settings(item.config)
    if (watching or uses_bpf(item)) and (chosen.state or chosen.trace or TRACED in item.stash):
        from pytest_bpf.plugin.artifacts.watching import watch

        watch(item)
    return (yield from _skipping(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test that meets something this environment cannot do."""
    result = yield from _skipping(item)
    if CLAIM_CHECK in item.stash and item.stash[CLAIM_CHECK].claim.verdict == "not measured":
        pytest.fail("bpf_claim: the test did not say what it found", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what is known of an item into its report: its state, claim, agents' output, costs."""
    report = yield
    if AGENTS in item.stash:
        report.sections += [
            (f"Captured output of agent {name}", text)
            for name, text in item.stash[AGENTS].new_output()
        ]
    if item.get_closest_marker("bpf_claim") and (report.when == "call" or report.skipped):
        from pytest_bpf.plugin.budgets import claim_marker

        claim = claim_marker.claim_result(item, report).as_dict()
        report.user_properties.append((CLAIM_PROPERTY, claim))
    if report.when == "teardown":
        for node in item.listchain():
            if COSTS in node.stash:
                report.user_properties.append((COSTS_PROPERTY, node.stash[COSTS]))
                del node.stash[COSTS]
            if LINT in node.stash:
                from pytest_bpf.plugin import linting

                linting.hand_over(node, report)
    chosen = settings(item.config)
    traced = chosen.trace or TRACED in item.stash
    if uses_bpf(item) and (report.failed or traced or chosen.artifacts_keep == "all"):
        from pytest_bpf.plugin.artifacts.plugin import explain

        explain(item, call, report)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain a failed comparison of maps and their values."""
    from pytest_bpf.plugin.differences import explain

    return explain(op, left, right)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show the costs when that was asked for, and what became of claims, budgets, baselines."""
    if settings(config).lint:
        from pytest_bpf.plugin import linting

        linting.show(terminalreporter, config, _values_of(terminalreporter, LINT_PROPERTY))
    if settings(config).costs and (costs := _values_of(terminalreporter, COSTS_PROPERTY)):
        from pytest_bpf.costs.figures.program import ProgramCost
        from pytest_bpf.reports.cost_table import costs_table

        terminalreporter.write_sep("=", "bpf: what the programs cost")
        for line in costs_table([ProgramCost(**cost) for some in costs for cost in some]):
            terminalreporter.write_line(line)
    if claims := _values_of(terminalreporter, CLAIM_PROPERTY):
        from pytest_bpf.budgets.claims import Claim
        from pytest_bpf.reports.claim_table import claim_lines, claims_table

        lines = claim_lines(map(Claim.from_dict, claims))
        terminalreporter.write_sep("=", "bpf: what became of the claims")
        for text in claims_table(lines, shutil.get_terminal_size().columns):
            terminalreporter.write_line(text)
    results = _with_results(terminalreporter)
    if results or NOTES in config.stash:
        from pytest_bpf.plugin.budgets import writer

        writer.show(terminalreporter, config, results)


def _only_informs(config: pytest.Config) -> bool:
    """Say whether pytest only shows information, and runs no test."""
    return any(config.getoption(name, False) for name in INFO_OPTIONS)


def _values_of(terminalreporter: pytest.TerminalReporter, name: str) -> list[Any]:
    return [
        value
        for report in _reports(terminalreporter)
        for key, value in report.user_properties
        if key == name
    ]


def _with_results(terminalreporter: pytest.TerminalReporter) -> list[dict[str, Any]]:
    return [
        report.bpf_results
        for report in _reports(terminalreporter)
        if hasattr(report, "bpf_results")
    ]


def _reports(terminalreporter: pytest.TerminalReporter) -> Iterator[pytest.TestReport]:
    """Yield the reports of tests, without those of tries that were repeated."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and counts(report):
                yield report


def _has_budget(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return "bpf_budget" in names or item.get_closest_marker("bpf_budget") is not None


def _budget(item: pytest.Item) -> None:
    """Refuse a budget that cannot be understood."""
    from pytest_bpf.plugin.budgets import plugin

    try:
        plugin.marker_limits(item)
    except BpfError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def _requirements(item: pytest.Item) -> Requirements:
    from pytest_bpf.plugin import requirements

    try:
        return requirements.Requirements.of(item.iter_markers("bpf_requires"))
    except requirements.RequirementError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def _skipping(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    except UnavailableError as error:
        unavailable(item, reason_of(error))
    except BpfError as error:
        if item.config.getoption("fulltrace"):
            raise
        from pytest_bpf.reports.traceback import without_our_frames

        output = getattr(error, "output", "")
        if output and isinstance(error, CompileError) and item.config.get_verbosity() > 1:
            item.add_report_section("call", "of the compiler", output)
        trimmed = without_our_frames(error.__traceback__)
        raise error.with_traceback(trimmed) from error.__cause__
