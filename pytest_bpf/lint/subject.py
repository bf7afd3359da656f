"""What a rule looks at: an object's functions and maps, and what its registers hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_bpf.kernel.maps.memory import MapSpec
from pytest_bpf.kinds.maps import MAPS as KINDS
from pytest_bpf.lint.findings import LintFinding
from pytest_bpf.lint.functions import functions
from pytest_bpf.lint.values import states

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.lint.findings import LintOptions
    from pytest_bpf.lint.functions import Function
    from pytest_bpf.lint.values import RegisterState
    from pytest_bpf.objects.loading.open_object import OpenObject


@dataclass(frozen=True)
class Analysis:
    """A function, and what is known before each of its instructions."""

    function: Function

    @cached_property
    def states(self) -> list[RegisterState | None]:
        """What is known before each instruction; None where no way leads."""
        return states(self.function)

    def helper_calls(self) -> Iterator[tuple[int, int, RegisterState]]:
        """Yield each call of a helper that can be reached: where, its number, what is known."""
        for at, helper in self.function.helper_calls():
            if (state := self.states[at]) is not None:
                yield at, helper, state


@dataclass(frozen=True)
class LintSubject:
    """An open object as rules see it; ``path`` is the source's or the object's."""

    path: str
    maps: dict[str, MapSpec]
    analyses: tuple[Analysis, ...]
    settings: LintOptions

    @classmethod
    def of(cls, obj: OpenObject, path: str, settings: LintOptions) -> LintSubject:
        """Return what rules see of an open object."""
        maps = {
            name: MapSpec(
                name, each.type, each.key_size, each.value_size, each.max_entries, int(each.flags)
            )
            for name, each in obj.maps.items()
        }
        parts = functions(obj.handle.content, list(obj.programs))
        return cls(path, maps, tuple(map(Analysis, parts)), settings)

    def calls(self) -> Iterator[tuple[Analysis, int, int, RegisterState]]:
        """Yield each call of a helper in the object: function, place, number, what is known."""
        for analysis in self.analyses:
            for at, helper, state in analysis.helper_calls():
                yield analysis, at, helper, state

    def finding(self, rule: str, analysis: Analysis, at: int, message: str) -> LintFinding:
        """Return a finding at an instruction."""
        function = analysis.function
        file, line = function.place(at)
        return LintFinding(file or self.path, line, rule, message, function.name)

    def kind(self, name: str) -> str:
        """Return the type of a map; "" for one that is not there."""
        return self.maps[name].type if name in self.maps else ""

    def memory(self, name: str) -> int:
        """Return the bytes that a map takes on the target's CPUs, nearly; 0 for other kinds."""
        spec, cpus = self.maps[name], self.settings.cpus
        kind = KINDS.get(spec.type)
        key, value = _rounded(spec.key_size), _rounded(spec.value_size)
        if kind is None or kind.map_of_maps or kind.key_fd:
            return 0
        if kind.per_cpu:
            value = 8 + value * cpus
        if kind.hashed:
            return spec.max_entries * (HASH_ELEMENT + key + value + HASH_BUCKET)
        if spec.type == "ringbuf":
            return spec.max_entries
        return spec.max_entries * value if kind.indexed and not kind.value_fd else 0


HASH_ELEMENT, HASH_BUCKET = 48, 16
"""Bytes of ``struct htab_elem`` and of a bucket; there is a bucket for each element at least."""


def _rounded(size: int) -> int:
    return (size + 7) // 8 * 8
