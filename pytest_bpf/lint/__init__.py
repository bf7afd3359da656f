"""The guide's checklist as findings: rules over the instructions of an object, with file and line.

Nothing is loaded: an object file and its types are enough. `lint` is the way in.
"""

from __future__ import annotations

from pytest_bpf.lint.findings import LintFinding, LintOptions
from pytest_bpf.lint.lint import lint
from pytest_bpf.lint.rules import RULES, Rule

__all__ = ["RULES", "LintFinding", "LintOptions", "Rule", "lint"]
