"""The agent as its users run it."""

import os
import subprocess
from pathlib import Path

import pytest

AGENT = Path(__file__).parents[1] / "build/openat-tracer"

pytestmark = pytest.mark.skipif(not AGENT.exists(), reason="the agent is not built: make")


@pytest.mark.bpf_requires(attach="tracepoint")
def test_prints_what_is_opened(bpf_agent, tmp_path):
    agent = bpf_agent([AGENT, str(tmp_path)[:31]])
    (tmp_path / "wanted").touch()
    agent.wait_output(f"{os.getpid()} .* {tmp_path}/wanted\n")


@pytest.mark.bpf_requires(attach="tracepoint")
def test_leaves_nothing(bpf_agent, tmp_path):
    agent = bpf_agent([AGENT, str(tmp_path)[:31]])
    assert {program.name for program in agent.programs.values()} == {"on_openat"}
    agent.stop()
    assert not agent.running


def test_a_mistake_is_a_line_and_a_status():
    done = subprocess.run([AGENT], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "usage: openat-tracer PREFIX\n"
