"""coverage.py and pytest-cov: what they want counted, and where they take it from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from pytest_bpf.coverage.values import FileLines

MODULE = "pytest_bpf.coverage"
"""The plugin of coverage.py, as its configuration names it."""


WITHOUT_PLUGIN = (
    "coverage.py's data have no lines of C: name the plugin in its configuration, "
    'plugins = ["pytest_bpf.coverage"] in [tool.coverage.run]'
)
"""What is said when ``coverage run`` counts Python alone."""


def runs_with_plugin(config: pytest.Config) -> bool:
    """Say whether the command ``coverage run`` runs pytest, and its configuration names us."""
    return not _controller(config) and _coverage(config) is not None and is_named(config)


def prepare(config: pytest.Config) -> None:
    """Let pytest-cov's reports have the plugin, also where the configuration does not name it."""
    combining = getattr(_controller(config), "combining_cov", None)
    if combining is not None:
        plugins = combining.get_option("run:plugins") or []
        if MODULE not in plugins:
            combining.set_option("run:plugins", [*plugins, MODULE])


def is_named(config: pytest.Config) -> bool:
    """Say whether coverage.py's own configuration names the plugin, for its own commands."""
    coverage = _coverage(config)
    if coverage is None:
        return True
    from coverage import Coverage

    own = Coverage(config_file=coverage.config.config_file or False, data_file=None)
    plugins = own.get_option("run:plugins")
    return isinstance(plugins, list) and MODULE in plugins


def sources(config: pytest.Config) -> tuple[list[Path], list[str]]:
    """Return the folders that are counted (none: all of the project), and patterns left out."""
    coverage = _coverage(config)
    if coverage is None:
        return [], []
    named = coverage.get_option("run:source") or []
    folders = [Path(name).absolute() for name in named if Path(name).is_dir()]
    return folders, list(coverage.get_option("run:omit") or [])


def add(config: pytest.Config, files: Sequence[FileLines]) -> list[str]:
    """Put what ran into coverage.py's data, when it collects some; return what there is to say."""
    coverage = _coverage(config)
    if coverage is None or not files:
        return []
    if not _controller(config) and not is_named(config):  # its reports would fail
        return [WITHOUT_PLUGIN]
    from pytest_bpf.coverage.reporter import NAME, executed_arcs
    from pytest_bpf.coverage.values import merge_builds

    files = merge_builds(files)
    data, notes = coverage.get_data(), []
    if coverage.get_option("run:branch"):
        data.add_arcs({file.path: executed_arcs(file) for file in files})
        notes = [
            f"{file.path}: its branches are not known, only its lines (counted by instructions)"
            for file in files
            if file.approximate
        ]
    else:
        data.add_lines({f.path: [n for n, count in f.lines.items() if count] for f in files})
    data.add_file_tracers({file.path: NAME for file in files})
    return notes


def keeps_tests(config: pytest.Config) -> bool:
    """Say whether pytest-cov keeps which test ran a line (``--cov-context=test``)."""
    return _controller(config) is not None and config.getoption("cov_context", None) == "test"


def add_test(config: pytest.Config, nodeid: str, files: Sequence[FileLines]) -> None:
    """Put what a test ran into coverage.py's data, as run by that test; without one, by none."""
    if files:
        coverage = _coverage(config)
        coverage.switch_context(f"{nodeid}|run" if nodeid else "")
        add(config, files)
        if nodeid:
            coverage.switch_context(f"{nodeid}|teardown")


def remember(config: pytest.Config, files: Sequence[FileLines]) -> None:
    """Keep what the sources' lines and branches are, for the reports of coverage.py."""
    if files and _coverage(config) is not None:
        from pytest_bpf.coverage import reporter
        from pytest_bpf.coverage.values import merge_builds

        reporter.remember(merge_builds(files))


def _controller(config: pytest.Config) -> Any:
    """Return pytest-cov's part that starts and combines; None where it does not count."""
    return getattr(config.pluginmanager.getplugin("_cov"), "cov_controller", None)


def _coverage(config: pytest.Config) -> Any:
    """Return the `coverage.Coverage` that collects in this process, None when there is none."""
    if controller := _controller(config):
        return controller.cov
    import sys

    if "coverage" not in sys.modules:
        return None
    from coverage import Coverage

    return Coverage.current()
