"""A whole agent with a kprobe, under load, where the kernel has kprobes."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_bpf import Agents

ONE_LINER = "bpftrace -e 'kprobe:vfs_statfs { @[comm] = count(); }'"

pytestmark = [
    pytest.mark.bpf_requires(attach="kprobe"),
    pytest.mark.skipif(not shutil.which("bpftrace"), reason="no bpftrace"),
]


def test_the_four_targets_on_bpftrace(bpf_agent: Agents) -> None:
    agent = bpf_agent(ONE_LINER, timeout=120)
    cost = agent.under(lambda count: [os.statvfs("/proc") for _ in range(count)], rate=100)
    assert cost.cpu < 0.02, cost
    assert (cost.memory or 0) < 200e6, cost
    assert cost.loss is not None, cost
    assert cost.loss < 0.001, cost
    assert cost.latency, cost
    assert cost.latency.p99 < 100_000, cost
    assert agent.links["vfs_statfs"].target == "kprobe vfs_statfs"
    print(cost)
