"""The rules: one row for each. docs/reference/lint-rules.md is made from this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.lint.rules import batches, code, maps, output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_bpf.lint.findings import LintFinding
    from pytest_bpf.lint.subject import LintSubject


@dataclass(frozen=True)
class Rule:
    """A rule: its ``name``, what it ``finds``, the reference ``suite`` that measured the gain.

    ``default`` is whether it runs when nothing was selected: rules that are often right to be
    broken do not.
    """

    name: str
    finds: str
    check: Callable[[LintSubject], Iterable[LintFinding]]
    suite: str = ""
    default: bool = True


_ROWS = (
    Rule("late-filter", "costly work before a condition that needs none of it",
         output.late_filter, "early_return"),
    Rule("unfiltered-output", "an event for every run", output.unfiltered_output, "filtering"),
    Rule("repeated-lookup", "one key looked up twice in one map", maps.repeated_lookup,
         "code_structure"),
    Rule("split-value", "one key looked up in two maps", maps.split_value, "code_structure"),
    Rule("shared-atomic", "an atomic on a number of all CPUs, where a per-CPU one would do",
         maps.shared_atomic, "per_cpu"),
    Rule("per-cpu-atomic", "an atomic on a per-CPU value", maps.per_cpu_atomic, "per_cpu"),
    Rule("racy-update", "a shared number that is read, changed and written back",
         maps.racy_update, "per_cpu"),
    Rule("dense-keys", "a hash whose keys are small constants", maps.dense_keys, "map_types"),
    Rule("never-deleted", "a hash that programs fill and do not empty", maps.never_deleted,
         "lru", default=False),
    Rule("large-map", "a map that takes more memory than --memory", maps.large_map, "map_sizing"),
    Rule("perf-buffer", "a perf buffer where the kernel has ring buffers", output.perf_buffer,
         "ring_buffer"),
    Rule("padding", "bytes sent to user space that nobody wrote", output.padding, "ring_buffer"),
    Rule("wake-up", "a wake-up of the reader for every event", output.wake_up, "ring_buffer",
         default=False),
    Rule("batch-residue", "batches that are sent when they are full, and by nothing else",
         batches.batch_residue, "batching", default=False),
    Rule("byte-loop", "many small reads that are one read", code.byte_loop, "string_reading"),
    Rule("large-stack", "a function that takes most of the stack", code.large_stack),
    Rule("constant-division", "a division by a constant", code.constant_division, "arithmetic",
         default=False),
    Rule("old-helper", "a helper that does not say whose memory it reads", code.old_helper),
    Rule("single-call", "a short static function that is not inlined", code.single_call,
         "inline_functions"),
)  # fmt: skip

RULES = {rule.name: rule for rule in _ROWS}
"""The rules by name."""
