"""One test that is measured: from its setup to the end of its call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cache import digest
from pytest_bpf.costs.span import costs_of
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.objects.elf import sections
from pytest_bpf.plugin.stash import LOADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.budgets.findings import Finding
    from pytest_bpf.budgets.limits import Limit
    from pytest_bpf.budgets.results import Key
    from pytest_bpf.costs.figures.figure import Figure
    from pytest_bpf.costs.span import Span
    from pytest_bpf.costs.workload import Costs
    from pytest_bpf.loader import Loader
    from pytest_bpf.objects import Object


@dataclass
class Trial:
    """One test: its limits, its figures and its findings.

    ``object_digests`` has a digest of each object that the test loaded, where sources are compared.
    It is empty when one of the objects came from no file, or is closed already.
    """

    limits: list[Limit]
    spans: list[tuple[Object, Span]] = field(default_factory=list)
    why_not: str = ""
    findings: list[Finding] = field(default_factory=list)
    figures: dict[Key, Figure] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    goes_into_baseline: bool = False
    passed: bool = False
    needs_rerun: bool = False
    object_digests: tuple[str, ...] = ()

    def watch(self, obj: Object) -> None:
        """Measure an object from here on; one whose lines are counted is not what ships."""
        if hasattr(obj.recording, "between"):
            self.why_not = f"the lines of {obj.path.name} were counted"
            return
        span = costs_of(obj)
        try:
            span.__enter__()
        except UnavailableError as error:
            self.why_not = str(error)
        else:
            self.spans.append((obj, span))

    def end(self, *, failed: bool = False) -> list[tuple[str, Costs]]:
        """Stop measuring; return what each object cost, and from now on measure nothing."""
        costs = []
        for obj, span in reversed(self.spans):
            try:
                span.__exit__(BpfError if failed else None)
                costs += [] if failed else [(obj.path.name, span.costs)]
            except BpfError as error:
                self.why_not = f"{obj.path.name} was closed before the end of the test ({error})"
        self.spans = []
        return costs[::-1]


ABOUT_SOURCES = (".debug", ".BTF")
"""How sections begin that tell of a program's source and types."""

TRIAL = pytest.StashKey[Trial]()


def uses_programs(item: pytest.Item) -> bool:
    """Say whether a test uses programs, or has a budget."""
    names = getattr(item, "fixturenames", ())
    return bool({"bpf", "bpf_module", "bpf_agent", "bpf_budget"} & set(names)) or bool(
        item.get_closest_marker("bpf_budget")
    )


def measures(item: pytest.Item) -> bool:
    """Say whether a test asks for what it costs, and not only loads programs."""
    names = getattr(item, "fixturenames", ())
    fixtures = {"bpf_measure", "bpf_costs", "bpf_overhead", "bpf_budget"}
    return bool(fixtures & set(names)) or bool(item.get_closest_marker("bpf_budget"))


def digests(spans: Sequence[tuple[Object, Span]]) -> tuple[str, ...]:
    """Return what `Trial.object_digests` is."""
    objects = [obj for obj, _ in spans]
    if not all(obj.content and not obj.closed for obj in objects):
        return ()
    return tuple(map(_digest, objects))


def _digest(obj: Object) -> str:
    """Return what differs when an object's code, data or maps do, and not its source's lines."""
    contents = sections(obj.content)
    names = {name for name in contents if not name.removeprefix(".rel").startswith(ABOUT_SOURCES)}
    parts: list[str | bytes] = [part for name in sorted(names) for part in (name, contents[name])]
    parts += [f"{name} {program.tag}" for name, program in sorted(obj.programs.items())]
    parts += [
        f"{name} {bpf_map.type} {bpf_map.key_size} {bpf_map.value_size} {bpf_map.max_entries}"
        for name, bpf_map in sorted(obj.maps.items())
    ]
    return digest(*parts)


def loaders(item: pytest.Item) -> list[Loader]:
    """Return the loaders of a test: its own, and its module's when it asks for that."""
    nodes = item.listchain() if "bpf_module" in getattr(item, "fixturenames", ()) else [item]
    return [node.stash[LOADER] for node in nodes if LOADER in node.stash]


def objects(item: pytest.Item) -> list[Object]:
    """Return what they have loaded."""
    return [obj for loader in loaders(item) for obj in loader.objects]
