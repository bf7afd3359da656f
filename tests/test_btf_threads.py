"""Threads read the types of one object at the same time."""

from __future__ import annotations

import sys

from pytest_bpf.kernel.btf import Btf, vmlinux
from pytest_bpf.kernel.sys.threads import run_together


def test_two_threads_resolve_the_same_types() -> None:
    kernel = vmlinux()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            btf = Btf(kernel._pointer)
            found, _ = run_together(lambda _, btf=btf: btf.find("sk_buff"), 2)  # type: ignore[misc]
            assert found[0] == found[1] == kernel.find("sk_buff")
    finally:
        sys.setswitchinterval(interval)
