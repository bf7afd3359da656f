"""What each line of C costs: machine instructions that ran, and helpers that were called."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.coverage.cost_rows import CostRow, annotated_text
from pytest_bpf.coverage.instruction_lines import instruction_lines
from pytest_bpf.coverage.native import native_code
from pytest_bpf.errors import LoadError, NotMeasuredError
from pytest_bpf.kernel.features.helpers import helper_ids
from pytest_bpf.kernel.programs.flow import is_helper_call
from pytest_bpf.objects.programs.twin import Twin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_bpf.coverage.instruction_lines import Line
    from pytest_bpf.coverage.native import NativeCode
    from pytest_bpf.objects import Object, Program


@dataclass(frozen=True)
class LineCost:
    """What one line cost: ``instructions`` of the machine, ``bpf_instructions``, helper calls.

    ``helpers`` are the calls by the helper's name; what runs inside of helpers is not among the
    instructions.
    """

    file: str
    line: int
    instructions: int
    bpf_instructions: int
    helpers: Mapping[str, int] = field(default_factory=dict)


class LineCosts(tuple[LineCost, ...]):
    """The costs of the lines that ran, by file and line; as text the source with its costs."""

    __slots__ = ()

    @property
    def instructions(self) -> int:
        """The machine instructions of all lines, without those of helpers."""
        return sum(cost.instructions for cost in self)

    @property
    def helpers(self) -> dict[str, int]:
        """The calls of helpers on all lines, by the helper's name."""
        calls: Counter[str] = Counter()
        for cost in self:
            calls.update(cost.helpers)
        return dict(calls)

    @classmethod
    def of(cls, costs: Iterable[LineCost]) -> LineCosts:
        """Return the sums by line of costs in any order."""
        totals: dict[Line, tuple[int, int, Counter[str]]] = {}
        for cost in costs:
            native, bpf, helpers = totals.get((cost.file, cost.line), (0, 0, Counter()))
            helpers.update(cost.helpers)
            sums = (native + cost.instructions, bpf + cost.bpf_instructions, helpers)
            totals[cost.file, cost.line] = sums
        return cls(
            LineCost(*line, native, bpf, dict(helpers))
            for line, (native, bpf, helpers) in sorted(totals.items())
        )

    def rows(self) -> list[CostRow]:
        """Return what an annotated source shows."""
        return [
            CostRow(
                cost.file,
                cost.line,
                cost.instructions,
                "".join(f"  + {count} x {name}" for name, count in cost.helpers.items()),
            )
            for cost in self
        ]

    def callgrind(self) -> str:
        """Return the costs in callgrind's format, for KCachegrind."""
        lines = ["# callgrind format", "events: Instructions BPF_instructions", ""]
        for path in dict.fromkeys(cost.file for cost in self):
            lines += [f"fl={path}", f"fn={Path(path).name}"]
            own = (cost for cost in self if cost.file == path)
            lines += [f"{c.line} {c.instructions} {c.bpf_instructions}" for c in own]
        return "\n".join([*lines, ""])

    def __str__(self) -> str:
        return annotated_text(self.rows(), "machine instructions")


class CostCounters:
    """Counts the runs of an object's instructions: its programs are those that ship.

    Raises `UnavailableError` without capstone, on other machines than x86-64 and for an object
    without line information, and `LoadError` for programs that cannot be loaded with counters.
    """

    def __init__(self, obj: Object) -> None:
        if obj.recording is not None:
            raise LoadError(
                f"{obj.path.name} counts its lines, and is not what ships: ask for the costs of "
                "lines in a test without bpf_lines, and without --bpf-cov"
            )
        self._obj = obj
        self._places: list[tuple[Program, NativeCode, dict[int, Line], Twin]] = []
        self._stack = ExitStack()
        with ExitStack() as failure:
            failure.callback(self._stack.close)
            for program in obj.programs.values():
                native = native_code(program)
                lines = instruction_lines(program, native.flow)
                twin = self._stack.enter_context(Twin(program, "count"))
                self._places.append((program, native, lines, twin))
            failure.pop_all()

    def start(self) -> None:
        """Let the programs with counters run from here on, behind the same descriptors."""
        for program, _, _, twin in self._places:
            shipped = os.dup(program.fd)
            self._stack.callback(os.close, shipped)
            self._stack.callback(os.dup2, shipped, program.fd)
            os.dup2(twin.fd, program.fd)

    def costs(self) -> LineCosts:
        """Return what the lines have cost until now."""
        names = {number: name for name, number in helper_ids().items()}
        return LineCosts.of(
            cost
            for _, native, lines, twin in self._places
            for cost in _costs(native, lines, twin.counts(), names)
        )

    def close(self) -> None:
        """Let the programs that ship take their places again."""
        self._stack.close()


def line_costs(obj: Object, workload: Callable[[], object]) -> LineCosts:
    """Return what the lines of an object cost in a workload.

    Programs that were attached before are not counted: attach them in the workload. Raises
    `NotMeasuredError` when no program ran; the other errors are those of `CostCounters`.
    """
    counters = CostCounters(obj)
    try:
        counters.start()
        workload()
        costs = counters.costs()
    finally:
        counters.close()
    if not costs:
        raise NotMeasuredError(
            f"{obj.path.name}: no program ran in the workload; programs that were attached before "
            "are not counted: attach them in the workload"
        )
    return costs


def _costs(
    native: NativeCode, lines: Mapping[int, Line], counts: Sequence[int], names: Mapping[int, str]
) -> Iterator[LineCost]:
    """Yield what each instruction that ran has cost."""
    code = native.flow
    for at, insn in enumerate(code.instructions):
        count = counts[code.block_of(at)] if at not in code.second else 0
        if count:
            name = names.get(insn.value, f"helper {insn.value}")
            calls = {name: count} if is_helper_call(insn) else {}
            yield LineCost(*lines[at], count * native.lengths.get(at, 0), count, calls)
