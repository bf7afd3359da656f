"""What programs cost, as plain values with units."""

from pytest_bpf.costs.program import ProgramCost, measure
from pytest_bpf.costs.statistics import statistics

__all__ = ["ProgramCost", "measure", "statistics"]
