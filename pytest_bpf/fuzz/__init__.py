"""Inputs that programs are given: two programs held against each other, invariants, worst cases."""

from __future__ import annotations

from pytest_bpf.fuzz.equivalence import DifferenceError, Equivalence, check_equivalence
from pytest_bpf.fuzz.invariants import Campaign, InvariantError, Trial, check_invariants
from pytest_bpf.fuzz.worst import WorstCase, find_worst

__all__ = [
    "Campaign",
    "DifferenceError",
    "Equivalence",
    "InvariantError",
    "Trial",
    "WorstCase",
    "check_equivalence",
    "check_invariants",
    "find_worst",
]
