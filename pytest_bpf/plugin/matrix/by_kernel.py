"""What workers report by kernel: why a test was skipped, and what the verifier counted."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.plugin.stash import COSTS_PROPERTY
from pytest_bpf.reports.matrix import skip_reasons, verifier_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


class ByKernel:
    """Notes both from reports, and shows them."""

    def __init__(self) -> None:
        self._reasons: dict[str, dict[str, str]] = {}
        self._insns: dict[tuple[str, str], set[int]] = {}

    def note(self, report: pytest.TestReport, test: str, kernel: str) -> None:
        """Note what a report says of ``test`` on ``kernel``."""
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            self._reasons.setdefault(test, {})[kernel] = reason
        properties: list[tuple[str, Any]] = report.user_properties
        for cost in chain.from_iterable(v for k, v in properties if k == COSTS_PROPERTY):
            program = f"{Path(cost['object']).name}:{cost['program']}"
            self._insns.setdefault((program, kernel), set()).add(cost["verified_insns"])

    def reasons(self, test: str) -> list[str]:
        """Return why a test was skipped, a line for each reason with its kernels."""
        return skip_reasons(self._reasons.get(test, {}))

    def verifier(self, kernels: Sequence[str]) -> list[str]:
        """Return the table of what the verifiers counted; no lines when nothing was loaded."""
        return verifier_table(self._insns, kernels) if self._insns else []
