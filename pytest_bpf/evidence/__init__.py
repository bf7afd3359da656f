"""What programs did: packets dropped and why, and readable differences of maps and values.

The names below are loaded by their first use: a failed comparison asks
`pytest_bpf.evidence.differences`, in sessions too that have nothing to do with BPF.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_bpf.evidence.counts import DropCounts, InterfaceDrops, QdiscDrops
    from pytest_bpf.evidence.drops import Drops, Span
    from pytest_bpf.evidence.reasons import ReasonCounter

_HOMES = {
    "DropCounts": "counts",
    "Drops": "drops",
    "InterfaceDrops": "counts",
    "QdiscDrops": "counts",
    "ReasonCounter": "reasons",
    "Span": "drops",
}

__all__ = ["DropCounts", "Drops", "InterfaceDrops", "QdiscDrops", "ReasonCounter", "Span"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
