"""What workers report by kernel: why a test was skipped, what the verifier counted or rejected."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import VerifierError
from pytest_bpf.plugin.stash import COSTS_PROPERTY
from pytest_bpf.reports.matrix import skip_reasons, verifier_table

if TYPE_CHECKING:
    from collections.abc import Sequence


REJECTED = "bpf_rejected"
"""The property of a report that names a program which the verifier rejected."""


class Rejections:
    """In a worker: puts a program that the verifier rejected into the reports of its test."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Name it as the table of costs does."""
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, VerifierError):
            item.user_properties.append((REJECTED, _name(error.object, error.program)))


class ByKernel:
    """Notes all that from reports, and shows it."""

    def __init__(self) -> None:
        self._reasons: dict[str, dict[str, str]] = {}
        self._insns: dict[tuple[str, str], set[int]] = {}
        self._rejected: set[tuple[str, str]] = set()

    def note(self, report: pytest.TestReport, test: str, kernel: str) -> None:
        """Note what a report says of ``test`` on ``kernel``."""
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            self._reasons.setdefault(test, {})[kernel] = reason
        properties: list[tuple[str, Any]] = report.user_properties
        for cost in chain.from_iterable(v for k, v in properties if k == COSTS_PROPERTY):
            program = _name(cost["object"], cost["program"])
            self._insns.setdefault((program, kernel), set()).add(cost["verified_insns"])
        self._rejected |= {(value, kernel) for name, value in properties if name == REJECTED}

    def reasons(self, test: str) -> list[str]:
        """Return why a test was skipped, a line for each reason with its kernels."""
        return skip_reasons(self._reasons.get(test, {}))

    def verifier(self, kernels: Sequence[str]) -> list[str]:
        """Return the table of what the verifiers counted; no lines when nothing was loaded."""
        if not (self._insns or self._rejected):
            return []
        return verifier_table(self._insns, kernels, self._rejected)


def _name(path: str, program: str) -> str:
    return f"{Path(path).name}:{program}"
