"""Sessions of pytest that tests run, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

TIMEOUT = 400
"""Seconds; saving a machine under emulation takes a minute when the host is busy."""

OF_WORKERS = ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID")
"""What tells a session that it is one of xdist's workers."""

OF_SESSIONS = (*OF_WORKERS, "PYTEST_CURRENT_TEST")
"""What tells a session that another one runs it."""


def run_in(
    folder: Path,
    *args: str,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder, as if no other were running; ``environment`` is added to ours."""
    ours = {name: value for name, value in os.environ.items() if name not in OF_SESSIONS}
    return subprocess.run(
        [python, "-m", "pytest", *args],
        cwd=folder,
        env={**ours, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


def run_with_machines(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest without the path that pytester adds: a machine is saved for each sys.path."""
    path = f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
    return pytester.run("env", path, *command, *args, timeout=TIMEOUT)
