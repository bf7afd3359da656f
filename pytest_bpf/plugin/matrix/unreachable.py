"""Stands in for a machine, or a host, that could not be had: its tests are errors that say why."""

from __future__ import annotations

import pytest


class Unreachable:
    """Reports each test as an error; nothing of it runs. The first says all that is known."""

    def __init__(self, kernel: str, reason: str) -> None:
        self._sentence = f"nowhere to run on {kernel}: {reason}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        """Take the place of running a test."""
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=self._sentence,
            when="setup",
            user_properties=item.user_properties,
        )
        self._sentence = self._sentence.partition("\n")[0]
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True
