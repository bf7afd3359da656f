"""pytest's entry point: hooks only, each a few lines that call a station."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_bpf import hookspecs, options
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.fixtures import (
    COSTS,
    _bpf_drop_reasons,
    _bpf_leaks,
    _bpf_session,
    bpf,
    bpf_cgroup,
    bpf_drops,
    bpf_measure,
    bpf_module,
    bpf_netns,
    bpf_netns_pair,
    bpf_pins,
    bpf_places,
    bpf_syscalls,
    bpf_traffic,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from pytest_bpf.requirements import Requirements

__all__ = [
    "_bpf_drop_reasons",
    "_bpf_leaks",
    "_bpf_session",
    "bpf",
    "bpf_cgroup",
    "bpf_drops",
    "bpf_measure",
    "bpf_module",
    "bpf_netns",
    "bpf_netns_pair",
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
        from pytest_bpf import matrix

        matrix.prepare(config)
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and what several kernels need."""
    if options.kernels(config):
        from pytest_bpf import matrix

        matrix.register(config)
    config.addinivalue_line(
        "markers",
        "bpf_requires(kernel, program_type, map_type, attach, helper, kfunc, btf, btf_type, "
        "config, libbpf, cpus): skip the test, saying what is missing, where the environment "
        "does not have all of these.",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a marker that cannot be understood before anything runs."""
    for item in items:
        if item.get_closest_marker("bpf_requires"):
            _requirements(item)


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
    return (yield from _skipping(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the costs of an item's programs into its last report."""
    report = yield
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
    """Show the table of costs, when it was asked for and there is something in it."""
    if not options.settings(config).costs:
        return
    from pytest_bpf.costs import ProgramCost
    from pytest_bpf.reports.terminal import costs_table

    costs = [
        ProgramCost(**cost)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == COSTS_PROPERTY
        for cost in value
    ]
    if costs:
        terminalreporter.section("bpf: what the programs cost")
        for line in costs_table(costs):
            terminalreporter.write_line(line)


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
