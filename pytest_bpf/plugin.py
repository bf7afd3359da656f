"""pytest's entry point: hooks only, each a few lines that call a station."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_bpf import hookspecs, options
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.fixtures import (
    _bpf_drop_reasons,
    _bpf_leaks,
    _bpf_session,
    bpf,
    bpf_agent,
    bpf_budget,
    bpf_cgroup,
    bpf_claim,
    bpf_costs,
    bpf_drops,
    bpf_measure,
    bpf_module,
    bpf_netns,
    bpf_netns_pair,
    bpf_overhead,
    bpf_pins,
    bpf_places,
    bpf_syscalls,
    bpf_traffic,
)
from pytest_bpf.stash import AGENTS, CLAIM_PROPERTY, COSTS, FINDING

if TYPE_CHECKING:
    from collections.abc import Generator

    from pytest_bpf.requirements import Requirements

__all__ = [
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
    "bpf_measure",
    "bpf_module",
    "bpf_netns",
    "bpf_netns_pair",
    "bpf_overhead",
    "bpf_pins",
    "bpf_places",
    "bpf_syscalls",
    "bpf_traffic",
]

TELLING = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow")
"""Options with which pytest tells something and runs no test."""

COSTS_PROPERTY = "bpf_costs"
"""The name under which a test's costs are in its report's ``user_properties``."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--bpf-*`` and ``bpf_*``."""
    options.add(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks of `pytest_bpf.hookspecs`."""
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Get the kernels ready, when tests are to run on others than the running one."""
    only_tells = any(config.getoption(name, False) for name in TELLING)
    if options.kernels(config) and not only_tells and not hasattr(config, "workerinput"):
        from pytest_bpf.matrix import session as matrix

        matrix.prepare(config)
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and what several kernels need."""
    if options.kernels(config):
        from pytest_bpf.matrix import session as matrix

        matrix.register(config)
    if options.judged(config):
        from pytest_bpf.judging import reporting, verdicts

        verdicts.register(config)
        if not hasattr(config, "workerinput"):
            reporting.register(config)
    config.addinivalue_line(
        "markers",
        "bpf_requires(kernel, program_type, map_type, attach, helper, kfunc, btf, btf_type, "
        "config, libbpf, cpus, exact): skip the test, saying what is missing, where the "
        "environment does not have all of these.",
    )
    config.addinivalue_line(
        "markers",
        "bpf_claim(says, row, verdict): what is claimed, and whether it 'holds', 'holds in part' "
        "or is 'refuted'; the test says by the fixture bpf_claim what it found.",
    )
    config.addinivalue_line(
        "markers",
        "bpf_budget(profile, program=NAME, map=NAME, METRIC=LIMIT...): fail the test when what it "
        "measures, or what its programs cost meanwhile, breaks a limit: run_time='150ns', "
        "cpu=('2%', '5%') (target, alarm).",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a marker that cannot be understood before anything runs."""
    for item in items:
        if item.get_closest_marker("bpf_budget"):
            _budget(item)
        if item.get_closest_marker("bpf_requires"):
            _requirements(item)
        if item.get_closest_marker("bpf_claim"):
            from pytest_bpf.judging import claiming

            claiming.claim_of(item)
    if any(map(_has_budget, items)):
        from pytest_bpf.judging import verdicts

        verdicts.register(config)


def pytest_report_collectionfinish(
    config: pytest.Config, items: list[pytest.Item]
) -> list[str] | str:
    """Say in one line what the environment offers, when a test asks for it."""
    if config.get_verbosity() < 0 or not any(map(_uses_bpf, items)):
        return []
    from pytest_bpf.reports.header import header

    return header(options.settings(config).cc)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test whose requirements are not met, before any fixture is made."""
    if item.get_closest_marker("bpf_requires"):
        missing = _requirements(item).missing()
        if missing:
            _unavailable(item, "requires " + "; ".join(missing))
    return (yield from _skipping(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test that meets something this environment cannot do."""
    result = yield from _skipping(item)
    if FINDING in item.stash and item.stash[FINDING].claim.verdict == "not measured":
        pytest.fail("bpf_claim: the test did not say what it found", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put an item's claim and its agents' output into its report, the costs into the last one."""
    report = yield
    if AGENTS in item.stash:
        report.sections += [
            (f"Captured output of agent {name}", text)
            for name, text in item.stash[AGENTS].new_output()
        ]
    if item.get_closest_marker("bpf_claim") and (report.when == "call" or report.skipped):
        from pytest_bpf.judging import claiming

        claim = claiming.found(item, report).as_dict()
        report.user_properties.append((CLAIM_PROPERTY, claim))
    if report.when == "teardown":
        for node in item.listchain():
            if COSTS in node.stash:
                report.user_properties.append((COSTS_PROPERTY, node.stash[COSTS]))
                del node.stash[COSTS]
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain a failed comparison of maps and their values."""
    from pytest_bpf.evidence.differences import explain

    return explain(op, left, right)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show the costs when that was asked for, and what became of claims, budgets, baselines."""
    if options.settings(config).costs and (costs := _reported(terminalreporter, COSTS_PROPERTY)):
        from pytest_bpf.costs import ProgramCost
        from pytest_bpf.reports.terminal import costs_table

        terminalreporter.write_sep("=", "bpf: what the programs cost")
        for line in costs_table([ProgramCost(**cost) for some in costs for cost in some]):
            terminalreporter.write_line(line)
    if claims := _reported(terminalreporter, CLAIM_PROPERTY):
        from pytest_bpf.claims import Claim
        from pytest_bpf.reports.claims import claim_lines, claims_markdown, claims_table

        lines = claim_lines(map(Claim.from_dict, claims))
        terminalreporter.write_sep("=", "bpf: what became of the claims")
        for text in claims_table(lines, shutil.get_terminal_size().columns):
            terminalreporter.write_line(text)
        if file := config.getoption("bpf_claims"):
            file.write_text("\n".join([*claims_markdown(lines), ""]), encoding="utf-8")
    if results := _with_results(terminalreporter):
        from pytest_bpf.judging import reporting

        reporting.show(terminalreporter, config, results)


def _reported(terminalreporter: pytest.TerminalReporter, name: str) -> list[Any]:
    return [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for given, value in getattr(report, "user_properties", ())
        if given == name
    ]


def _with_results(terminalreporter: pytest.TerminalReporter) -> list[dict[str, Any]]:
    return [
        report.bpf_results
        for reports in terminalreporter.stats.values()
        for report in reports
        if hasattr(report, "bpf_results")
    ]


def _has_budget(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return "bpf_budget" in names or item.get_closest_marker("bpf_budget") is not None


def _budget(item: pytest.Item) -> None:
    """Refuse a budget that cannot be understood."""
    from pytest_bpf.judging import verdicts

    try:
        verdicts.marker_limits(item)
    except BpfError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def _requirements(item: pytest.Item) -> Requirements:
    from pytest_bpf import requirements

    try:
        return requirements.Requirements.of(item.iter_markers("bpf_requires"))
    except requirements.RequirementError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def _uses_bpf(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return any(name == "bpf" or name.startswith("bpf_") for name in names)


def _skipping(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    except UnavailableError as error:
        _unavailable(item, str(error))
    except BpfError as error:
        if item.config.getoption("fulltrace"):
            raise
        from pytest_bpf.reports.traceback import without_our_frames

        trimmed = without_our_frames(error.__traceback__)
        raise error.with_traceback(trimmed) from error.__cause__


def _unavailable(item: pytest.Item, reason: str) -> NoReturn:
    if options.settings(item.config).strict:
        pytest.fail(f"--bpf-strict: {reason}", pytrace=False)
    raise pytest.skip.Exception(reason, _use_item_location=True)
