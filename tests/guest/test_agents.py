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


def load(count: int) -> None:
    for _ in range(count):
        os.statvfs("/")


@pytest.mark.bpf_budget("agent")
def test_the_four_targets_on_bpftrace(bpf_agent: Agents) -> None:
    agent = bpf_agent(ONE_LINER, timeout=120, grace=30)
    cost = agent.under(load, rate=100)
    assert cost.lost == 0, cost
    assert agent.links["vfs_statfs"].target == "kprobe vfs_statfs"
