"""What programs cost, as plain values with units."""

from pytest_bpf.costs.figures.figure import METRICS, Figure, Metric
from pytest_bpf.costs.figures.program import ProgramCost, cost_so_far
from pytest_bpf.costs.latency import Delays, Latency, latency
from pytest_bpf.costs.map_speed import MapSpeed, map_speed
from pytest_bpf.costs.run import Measure, RunCost, measure
from pytest_bpf.costs.slow_down import Estimate, MeasureOverhead, Overhead, overhead
from pytest_bpf.costs.span import MeasureCosts, Span, costs_of
from pytest_bpf.costs.workload import Costs, EventCosts, MapCosts, ProgramCosts
from pytest_bpf.kernel.programs.run_time_stats import statistics

__all__ = [
    "METRICS",
    "Costs",
    "Delays",
    "Estimate",
    "EventCosts",
    "Figure",
    "Latency",
    "MapCosts",
    "MapSpeed",
    "Measure",
    "MeasureCosts",
    "MeasureOverhead",
    "Metric",
    "Overhead",
    "ProgramCost",
    "ProgramCosts",
    "RunCost",
    "Span",
    "cost_so_far",
    "costs_of",
    "latency",
    "map_speed",
    "measure",
    "overhead",
    "statistics",
]
