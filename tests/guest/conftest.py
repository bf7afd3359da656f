"""What the tests of the guest share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.kernel.sys.exact import is_machine

if TYPE_CHECKING:
    from collections.abc import Callable

collect_ignore_glob = [] if is_machine() else ["test_*.py"]
"""Outside of a machine nothing: ``tests/test_vm_guest.py`` takes these tests to one."""


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds; fail after 20 seconds."""

    def wait_for(holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < until, "it never came to hold"
            time.sleep(0.001)

    return wait_for
