"""Whether this kernel's time is a count of instructions: the machine says so when it boots it."""

from __future__ import annotations

from pathlib import Path

EXACT, INEXACT = "pytest_bpf.exact=1", "pytest_bpf.exact=0"
"""Words on the kernel's command line; a machine of ours has one of them."""


def is_exact() -> bool:
    """Say whether this is a machine that was started to count instructions."""
    return EXACT in _command_line()


def is_machine() -> bool:
    """Say whether this is a machine of ours, where nothing outlives the run."""
    return not {EXACT, INEXACT}.isdisjoint(_command_line())


def _command_line() -> list[str]:
    return Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace").split()
