"""The lines of a session: counted here or by workers, handed to coverage.py, and reported."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.cache import open_cache
from pytest_bpf.plugin.coverage import coverage_py
from pytest_bpf.plugin.coverage.choice import measures
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import LINES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from pytest_bpf.coverage.recorder import Recorder
    from pytest_bpf.coverage.values import FileLines
    from pytest_bpf.lint.ranking import MeasuredLines

OUTPUT = "bpf_lines"
"""What a worker's lines are called among what it tells the controller."""


def register(config: pytest.Config) -> None:
    """Count lines from here on."""
    lines = Lines(config)
    config.stash[LINES] = lines
    config.pluginmanager.register(lines, "bpf-lines")
    coverage_py.prepare(config)


class Lines:
    """The hooks, and what was counted. ``notes`` are sentences for the end of the session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._recorder: Recorder | None = None
        self._of_workers: list[dict[str, Any]] = []
        self._measuring: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._outside: dict[str, None] = {}
        self.files: list[FileLines] = []

    def recorder_for(self, items: Sequence[pytest.Item]) -> Recorder | None:
        """Return what counts the lines of some tests; None when one of them measures."""
        if settings(self._config).measures_every_test or settings(self._config).costs:
            self._notes[
                "nothing was counted: --bpf-costs, budgets and baselines measure the programs"
                " of all tests, as they ship"
            ] = None
            return None
        measuring = [item.nodeid for item in items if measures(item)]
        self._measuring.update(dict.fromkeys(measuring))
        if measuring:
            return None
        if self._recorder is None:
            from pytest_bpf.coverage.recorder import Recorder

            self._recorder = Recorder(apart=settings(self._config).cov_apart)
        return self._recorder

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Hand over what a test ran, when coverage.py keeps that by test."""
        result = yield
        if self._recorder is not None and coverage_py.keeps_tests(self._config):
            files = [f for f in self._recorder.new_files() if self._is_wanted(f.path)]
            coverage_py.add_test(self._config, item.nodeid, files)
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Hand over what was counted, before pytest-cov combines and reports."""
        result = yield
        own: list[FileLines] = []
        if self._recorder is not None:
            own = [file for file in self._recorder.files() if self._is_wanted(file.path)]
            if coverage_py.keeps_tests(self._config):  # those that no test ran, too
                coverage_py.add_test(self._config, "", own)
            else:
                self._notes.update(dict.fromkeys(coverage_py.add(self._config, own)))
            self._notes.update(self._recorder.notes)
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput[OUTPUT] = {
                "files": [file.as_dict() for file in own],
                "notes": list(self._notes),
                "measuring": list(self._measuring),
                "outside": list(self._outside),
            }
        elif own or self._of_workers:
            from pytest_bpf.coverage.values import FileLines, merge

            self.files = merge([*own, *map(FileLines.from_dict, self._of_workers)])
            coverage_py.remember(self._config, self.files)
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker counted."""
        output = getattr(node, "workeroutput", {}).get(OUTPUT)
        if output is not None:
            self._of_workers += output["files"]
            self._notes.update(dict.fromkeys(output["notes"]))
            self._measuring.update(dict.fromkeys(output["measuring"]))
            self._outside.update(dict.fromkeys(output["outside"]))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report, and say what was not counted."""
        from pytest_bpf.plugin.coverage.reporting import report

        measuring, outside = list(self._measuring), list(self._outside)
        notes = [*self._notes, *_measuring_note(measuring), *_outside_note(outside)]
        if self.files or notes:
            report(self._config, terminalreporter, self.files, notes)

    def measured(self) -> MeasuredLines:
        """Return how often lines ran, and which are dead, for findings about them."""
        from pytest_bpf.coverage.values import merge_builds
        from pytest_bpf.lint.ranking import MeasuredLines

        files = merge_builds(self.files)
        amounts = {(f.path, line): count for f in files for line, count in f.lines.items()}
        dead = frozenset((file.path, line) for file in files for line in file.dead)
        return MeasuredLines("runs", amounts, dead)

    def _is_wanted(self, path: str) -> bool:
        """Say whether a source is one of the project's, and one of those that were asked for."""
        folders, omit = coverage_py.sources(self._config)
        here = Path(path)
        if not any(here.is_relative_to(folder) for folder in folders or [self._config.rootpath]):
            if not folders and here.suffix == ".c" and not here.is_relative_to(open_cache().folder):
                self._outside[path] = None
            return False
        if not here.is_file():
            self._notes[f"{path}: the source is gone, its lines are not reported"] = None
            return False
        return not any(_matches(path, line, self._config.rootpath) for line in omit)


def _matches(path: str, line: str, root: Path) -> bool:
    return fnmatch(path, line if line.startswith(("*", "/")) else str(root / line))


def _measuring_note(names: Sequence[str]) -> Iterable[str]:
    if names:
        yield (
            f"{len(names)} test{'s' * (len(names) != 1)} measured programs as they ship, whose "
            f"lines were not counted: {_some(names)}"
        )


def _outside_note(paths: Sequence[str]) -> Iterable[str]:
    if paths:
        yield (
            f"{len(paths)} source{'s' * (len(paths) != 1)} outside of pytest's root directory "
            f"{'are' if len(paths) > 1 else 'is'} not reported: {_some(paths)}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
