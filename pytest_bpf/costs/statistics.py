"""The kernel's run-time statistics, switched on only while somebody measures."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN_TIME = 0
"""``BPF_STATS_RUN_TIME`` of ``enum bpf_stats_type``."""


@contextmanager
def statistics() -> Iterator[None]:
    """Have the kernel count and time every program's runs (``BPF_ENABLE_STATS``, 5.8).

    They are on for the whole machine while any process holds the descriptor, and add about 65 ns
    to each run. Raises `UnavailableError` where the kernel refuses.
    """
    try:
        fd = libbpf.call("bpf_enable_stats", RUN_TIME)
    except OSError as error:
        raise UnavailableError(
            f"the kernel's BPF statistics cannot be switched on: {error.strerror}"
        ) from None
    try:
        yield
    finally:
        os.close(fd)
