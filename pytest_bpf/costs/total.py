"""The costs of several objects together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_bpf.costs.figures.figure import Figure
    from pytest_bpf.costs.workload import Costs


def sum_costs(costs_by_file: Sequence[tuple[str, Costs]]) -> Iterator[tuple[str, Figure]]:
    """Yield every figure of objects, each given by its file's name, with the file it is of.

    Programs and maps of the same name in two objects are told apart by their files:
    ``"prog before.bpf.c:count"``. Figures of the whole are added up, and of no file.
    """
    parts = [(file, [f for f in costs.figures() if f.subject]) for file, costs in costs_by_file]
    objects = Counter(s for _, figures in parts for s in {figure.subject for figure in figures})
    for file, figures in parts:
        for figure in figures:
            kind, _, name = figure.subject.partition(" ")
            shared = objects[figure.subject] > 1
            subject = f"{kind} {file}:{name}" if shared else figure.subject
            yield file, replace(figure, subject=subject)
    if costs_by_file:
        for metric in ("cpu", "memory"):
            yield "", _sum([getattr(costs, metric) for _, costs in costs_by_file])


def _sum(figures: Sequence[Figure]) -> Figure:
    """Return the figure of several at once; what one of them lacks, the sum lacks too."""
    for figure in figures:
        if figure.value is None:
            return figure
    if len(figures) == 1:
        return figures[0]
    certain = all(figure.lower == figure.value == figure.upper for figure in figures)
    value = sum(figure.value or 0.0 for figure in figures)
    bound = value if certain else None
    return replace(figures[0], value=value, lower=bound, upper=bound, samples=())
