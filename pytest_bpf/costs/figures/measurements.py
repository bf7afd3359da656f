"""Whatever was measured, as figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pytest_bpf.costs.figures.figure import Figure
from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    from collections.abc import Iterator


def figures_of(value: Any) -> Iterator[Figure]:
    """Yield the figures of figures, of what has ``figures``, and of collections of these.

    Raises `BpfError` for anything else.
    """
    if isinstance(value, Figure):
        yield value
    elif hasattr(value, "figures"):
        figures = value.figures
        yield from figures_of(figures() if callable(figures) else figures)
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        for part in value:
            yield from figures_of(part)
    else:
        raise BpfError(
            f"{type(value).__name__} is nothing measured: give figures, or what has figures, "
            "such as bpf_measure returns"
        )
