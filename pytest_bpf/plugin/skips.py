"""Skips for what this environment cannot do, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from pytest_bpf.errors import PrivilegeError
from pytest_bpf.plugin.settings import settings

if TYPE_CHECKING:
    from pytest_bpf.errors import UnavailableError

MACHINE = "--bpf-kernel"
"""The option by which tests need no privilege."""


def unavailable(item: pytest.Item, reason: str) -> NoReturn:
    """Skip a test for what this environment cannot do; with ``--bpf-strict`` fail it.

    On several kernels it is skipped: another may do it, and what none does the controller reports.
    """
    others = len(getattr(item.config, "workerinput", {}).get("bpf_kernels", ())) > 1
    if settings(item.config).strict and not others:  # else only what runs nowhere is an error
        pytest.fail(f"--bpf-strict: {reason}", pytrace=False)
    raise pytest.skip.Exception(reason, _use_item_location=True)


def reason_of(error: UnavailableError) -> str:
    """Return the reason of a skip; whoever lacks privilege is told what needs none."""
    reason = str(error)
    if isinstance(error, PrivilegeError) and MACHINE not in reason:
        return f"{reason}, or the tests in a machine ({MACHINE} debian)"
    return reason
