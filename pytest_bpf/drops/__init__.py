"""Dropped packets, and the reasons.

The names below are imported by their first use, so that sessions without BPF do not pay.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_bpf.drops.counts import DropCounts, InterfaceDrops, QdiscDrops
    from pytest_bpf.drops.drops import Drops, DropSpan
    from pytest_bpf.drops.reasons import ReasonCounter

_HOMES = {
    "DropCounts": "counts",
    "Drops": "drops",
    "InterfaceDrops": "counts",
    "QdiscDrops": "counts",
    "ReasonCounter": "reasons",
    "DropSpan": "drops",
}

__all__ = ["DropCounts", "DropSpan", "Drops", "InterfaceDrops", "QdiscDrops", "ReasonCounter"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
