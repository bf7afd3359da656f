"""What lines cost, over a whole session: in the place of the `Recorder` of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.coverage.line_costs import CostCounters, LineCosts
from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_bpf.objects import Object, Run


class CostRecorder:
    """Counts the instructions of all objects; ``notes`` say which ones cannot be counted."""

    def __init__(self) -> None:
        self.notes: dict[str, None] = {}
        self.costs = LineCosts()

    def counting_build(self, source: Path, compile_with: object, label: str) -> None:  # noqa: ARG002
        """Return none: costs are those of what ships."""
        return

    def refuse(self, source: Path, error: Exception) -> None:
        """Pass over what would keep clang's counters out."""

    def count_instructions(self, obj: Object) -> None:
        """Count what the lines of an object cost until it is closed."""
        try:
            counters = CostCounters(obj)
        except (BpfError, ValueError) as error:
            reason = str(error).splitlines()[0]
            self.notes[f"{obj.path}: what its lines cost is not known: {reason}"] = None
            return
        counters.start()
        obj.recording = _Cost(self, counters)

    def add(self, costs: LineCosts) -> None:
        """Add the costs of one object."""
        self.costs = LineCosts.of((*self.costs, *costs))


class _Cost:
    """What an object has for its recording: nothing is known of single runs."""

    def __init__(self, recorder: CostRecorder, counters: CostCounters) -> None:
        self._recorder = recorder
        self._counters = counters

    def record(self, run: Callable[[], Run]) -> Run:
        """Run a program."""
        return run()

    def close(self) -> None:
        """Keep the costs when the object is closed."""
        self._recorder.add(self._counters.costs())
        self._counters.close()
