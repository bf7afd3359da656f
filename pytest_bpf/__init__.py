"""Test eBPF programs as easily as Python functions.

The names below are the public face outside of pytest; each is loaded by its first use, so that
having the plugin installed and unused costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pytest_bpf.agents import Agent, AgentCost, Agents
    from pytest_bpf.compile import Compiled, Compiler, compile_source
    from pytest_bpf.costs import (
        Costs,
        Estimate,
        EventCosts,
        Figure,
        Latency,
        MapCosts,
        MapSpeed,
        Measure,
        Overhead,
        ProgramCosts,
        RunCost,
        Span,
        costs_of,
        latency,
        map_speed,
        measure,
        overhead,
    )
    from pytest_bpf.errors import (
        AgentError,
        AttachError,
        BpfError,
        BudgetError,
        BudgetWarning,
        CompileError,
        LeakWarning,
        LoadError,
        MapError,
        PlaceError,
        RunError,
        StimulusError,
        UnavailableError,
        UnknownNameError,
        ValueTypeError,
        VerifierError,
    )
    from pytest_bpf.evidence import DropCounts, Drops
    from pytest_bpf.kernel.values import Record
    from pytest_bpf.kernel.verdicts import TcAction, XdpAction
    from pytest_bpf.loader import Loader
    from pytest_bpf.objects import (
        EventArray,
        EventList,
        Events,
        Link,
        Map,
        Object,
        PerCPU,
        Program,
        Run,
        VerifierStats,
    )
    from pytest_bpf.places import Cgroup, Interface, Namespace, PinDirectory, Topology
    from pytest_bpf.places.factory import Places
    from pytest_bpf.stimuli import Ran, Sent, Syscalls, Traffic

_HOMES = {
    "agents": ("Agent", "AgentCost", "Agents"),
    "compile": ("Compiled", "Compiler", "compile_source"),
    "costs": (
        "Costs",
        "Estimate",
        "EventCosts",
        "Figure",
        "Latency",
        "MapCosts",
        "MapSpeed",
        "Measure",
        "Overhead",
        "ProgramCosts",
        "RunCost",
        "Span",
        "costs_of",
        "latency",
        "map_speed",
        "measure",
        "overhead",
    ),
    "errors": (
        *(
            "AgentError",
            "AttachError",
            "BpfError",
            "BudgetError",
            "BudgetWarning",
            "CompileError",
            "LeakWarning",
            "LoadError",
            "MapError",
        ),
        *("PlaceError", "RunError", "StimulusError", "UnavailableError", "UnknownNameError"),
        *("ValueTypeError", "VerifierError"),
    ),
    "evidence": ("DropCounts", "Drops"),
    "kernel.values": ("Record",),
    "kernel.verdicts": ("TcAction", "XdpAction"),
    "loader": ("Loader",),
    "objects": (
        *("EventArray", "EventList", "Events", "Link", "Map", "Object", "PerCPU", "Program"),
        *("Run", "VerifierStats"),
    ),
    "places": ("Cgroup", "Interface", "Namespace", "PinDirectory", "Topology"),
    "places.factory": ("Places",),
    "stimuli": ("Ran", "Sent", "Syscalls", "Traffic"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "AgentCost",
    "AgentError",
    "Agents",
    "AttachError",
    "BpfError",
    "BudgetError",
    "BudgetWarning",
    "Cgroup",
    "CompileError",
    "Compiled",
    "Compiler",
    "Costs",
    "DropCounts",
    "Drops",
    "Estimate",
    "EventArray",
    "EventCosts",
    "EventList",
    "Events",
    "Figure",
    "Interface",
    "Latency",
    "LeakWarning",
    "Link",
    "LoadError",
    "Loader",
    "Map",
    "MapCosts",
    "MapError",
    "MapSpeed",
    "Measure",
    "Namespace",
    "Object",
    "Overhead",
    "PerCPU",
    "PinDirectory",
    "PlaceError",
    "Places",
    "Program",
    "ProgramCosts",
    "Ran",
    "Record",
    "Run",
    "RunCost",
    "RunError",
    "Sent",
    "Span",
    "StimulusError",
    "Syscalls",
    "TcAction",
    "Topology",
    "Traffic",
    "UnavailableError",
    "UnknownNameError",
    "ValueTypeError",
    "VerifierError",
    "VerifierStats",
    "XdpAction",
    "__version__",
    "compile_source",
    "costs_of",
    "latency",
    "map_speed",
    "measure",
    "overhead",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
