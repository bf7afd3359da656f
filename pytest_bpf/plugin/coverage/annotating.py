"""``--bpf-annotate``: what each line of C cost in the tests of a session."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.plugin.coverage.choice import measures
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import LINES

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from pytest_bpf.coverage.cost_recorder import CostRecorder
    from pytest_bpf.coverage.line_costs import LineCosts
    from pytest_bpf.lint.ranking import MeasuredLines

OUTPUT = "bpf_line_costs"
"""What a worker's costs are called among what it tells the controller."""


def register(config: pytest.Config) -> None:
    """Count what lines cost from here on."""
    annotations = Annotations(config)
    config.stash[LINES] = annotations
    config.pluginmanager.register(annotations, "bpf-line-costs")


class Annotations:
    """The hooks, and what was counted here and by workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._recorder: CostRecorder | None = None
        self._of_workers: list[dict[str, Any]] = []
        self._notes: dict[str, None] = {}

    def recorder_for(self, items: Sequence[pytest.Item]) -> CostRecorder | None:
        """Return what counts the costs of some tests; None when one of them measures, too."""
        if any(measures(item) or "bpf_lines" in _fixtures(item) for item in items):
            return None
        if self._recorder is None:
            from pytest_bpf.coverage.cost_recorder import CostRecorder

            self._recorder = CostRecorder()
        return self._recorder

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Hand a worker's costs over."""
        result = yield
        if hasattr(self._config, "workeroutput") and self._recorder is not None:
            self._config.workeroutput[OUTPUT] = {
                "costs": [asdict(cost) for cost in self._recorder.costs],
                "notes": list(self._recorder.notes),
            }
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker counted."""
        output = getattr(node, "workeroutput", {}).get(OUTPUT, {"costs": [], "notes": []})
        self._of_workers += output["costs"]
        self._notes.update(dict.fromkeys(output["notes"]))

    def costs(self) -> LineCosts:
        """Return what was counted here and by workers."""
        from pytest_bpf.coverage.line_costs import LineCost, LineCosts

        own = self._recorder.costs if self._recorder is not None else ()
        return LineCosts.of([*own, *(LineCost(**cost) for cost in self._of_workers)])

    def measured(self) -> MeasuredLines:
        """Return what lines cost, for findings about them."""
        from pytest_bpf.lint.ranking import MeasuredLines

        costs = {(cost.file, cost.line): cost.instructions for cost in self.costs()}
        return MeasuredLines("machine instructions", costs)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the annotated sources, and write the files that were asked for."""
        own, costs = self._recorder, self.costs()
        notes = [*self._notes, *(own.notes if own else ())]
        terminalreporter.write_sep("=", "bpf: what the lines cost")
        for text in str(costs).splitlines() if costs else ["no line ran that is counted"]:
            terminalreporter.write_line(text)
        for helper, count in costs.helpers.items():
            terminalreporter.write_line(
                f"helpers, whose instructions are apart: {count} x {helper}"
            )
        for note in notes:
            terminalreporter.write_line(note)
        for kind, path in settings(self._config).annotate_reports:
            terminalreporter.write_line(_written(kind, path, costs))


def _written(kind: str, path: Path, costs: LineCosts) -> str:
    from pytest_bpf.reports.line_costs import FORMATS

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FORMATS[kind](costs))
    except OSError as error:
        return f"ERROR: --bpf-annotate-report={kind}:{path} cannot be written: {error.strerror}"
    return f"{kind} written to {path}"


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())
