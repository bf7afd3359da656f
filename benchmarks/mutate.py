"""``python -m benchmarks.mutate``: how long ``pytest-bpf mutate`` takes: 100 mutants, 20 tests.

The program is the filter of ``bpf_examples/xdp_filter``; the tests hand it frames. Nothing that it
compiles is in a cache: its first line is another one each time. The seconds are of the clock, and
of the processors, which other work on the machine does not make more of.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILTER = Path(__file__).parent.parent / "bpf_examples" / "xdp_filter" / "filter.bpf.c"
MUTANTS, TESTS, GOAL = 100, 20, 60.0

TEST = '''\
"""Twenty frames, and what the filter does with each."""

import pytest

from pytest_bpf.traffic.packets import icmp_frame, tcp_frame, udp_frame

FRAMES = [
    (frame(**{"ipv6": ipv6, "vlan": vlan, **ports}), dropped and frame is udp_frame)
    for ipv6 in (False, True)
    for vlan in (None, 5)
    for frame, ports, dropped in (
        (udp_frame, {"dport": 53}, True),
        (udp_frame, {"dport": 54}, False),
        (udp_frame, {"sport": 53}, False),
        (tcp_frame, {"dport": 53}, True),
        (icmp_frame, {}, True),
    )
]


@pytest.fixture(scope="module")
def program(bpf_module):
    return bpf_module.load("filter.bpf.c", globals={"port": 53}).programs["filter"]


@pytest.mark.parametrize("number", range(20))
def test_frame(program, number):
    frame, dropped = FRAMES[number]
    assert program.test_run(frame).retval == (1 if dropped else 2)
'''


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-mutate-") as place:
        folder = Path(place, "project")
        folder.mkdir()
        source = f"/* {time.time_ns()} */ {FILTER.read_text('utf-8')}"
        (folder / FILTER.name).write_text(source, "utf-8")
        (folder / "test_frames.py").write_text(TEST, "utf-8")
        command = (sys.executable, "-m", "pytest_bpf", "mutate", FILTER.name)
        begin, before = time.monotonic(), os.times()
        done = subprocess.run(
            (*command, "--limit", str(MUTANTS)),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds, after = time.monotonic() - begin, os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    summary = done.stdout.splitlines()[-2:]
    print("\n".join(summary) or done.stderr)
    tried = sum(int(number) for number in re.findall(r"(\d+) [kstr]", "".join(summary[:1])))
    print(
        f"{tried} mutants, {TESTS} tests: {seconds:.0f} s, {used:.0f} s of processors "
        f"({os.cpu_count()} of them, load {os.getloadavg()[0]:.0f}); "
        f"the goal is {GOAL:.0f} s for {MUTANTS}"
    )


if __name__ == "__main__":
    main()
