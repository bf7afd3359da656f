"""What programs cost, as plain values with units."""

from pytest_bpf.costs.latency import Delays, Latency, latency
from pytest_bpf.costs.program import ProgramCost, cost_so_far
from pytest_bpf.costs.run import Measure, RunCost, measure
from pytest_bpf.costs.statistics import statistics

__all__ = [
    "Delays",
    "Latency",
    "Measure",
    "ProgramCost",
    "RunCost",
    "cost_so_far",
    "latency",
    "measure",
    "statistics",
]
