"""What programs cost, as plain values with units."""

from pytest_bpf.costs.program import ProgramCost, cost_so_far
from pytest_bpf.costs.run import Measure, RunCost, measure
from pytest_bpf.costs.statistics import statistics

__all__ = ["Measure", "ProgramCost", "RunCost", "cost_so_far", "measure", "statistics"]
