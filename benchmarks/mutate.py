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
"""Twenty frames, by which every line of the filter runs, and what it does with each."""

import pytest

from pytest_bpf.traffic.packets import CLIENT, icmp_frame, tcp_frame, udp_frame

PASS, DROP = 2, 1


def behind(kind, inner, content=bytes(6)):
    return inner[:20] + bytes([kind]) + inner[21:54] + inner[20:21] + b"\\0" + content + inner[54:]


FRAMES = [
    (frame(ipv6=ipv6, vlan=5 if ipv6 else None, **ports), verdict)
    for ipv6 in (False, True)
    for frame, ports, verdict in (
        (udp_frame, {"dport": 53}, DROP),
        (udp_frame, {"dport": 54}, PASS),
        (udp_frame, {"sport": 53}, PASS),
        (tcp_frame, {"dport": 53}, PASS),
        (icmp_frame, {}, PASS),
    )
]
V4, V6 = FRAMES[0][0], udp_frame(dport=53, ipv6=True)
FIRST, LATER = bytes.fromhex("0001 00000000"), bytes.fromhex("0008 00000000")
FRAMES += [
    (V4[:20] + bytes.fromhex("2001") + V4[22:], PASS),
    (V4[:12] + bytes.fromhex("88a8 0007") + V4[12:], DROP),
    (V4[:14] + b"\\x46" + V4[15:34] + bytes(4) + V4[34:], DROP),
    (V4[:41], PASS),
    (behind(0, V6), DROP),
    (behind(60, behind(43, V6)), DROP),
    (behind(44, V6, FIRST), DROP),
    (behind(44, V6, LATER), PASS),
    (behind(44, V6)[:61], PASS),
    (V6[:53], PASS),
]


@pytest.fixture(scope="module")
def obj(bpf_module):
    return bpf_module.load("filter.bpf.c", globals={"port": 53})


@pytest.mark.parametrize("number", range(20))
def test_frame(obj, number):
    frame, verdict = FRAMES[number]
    assert obj.programs["filter"].test_run(frame).retval == verdict
    if number in (3, 8):  # TCP, by either version, from a blocked source
        sources, source = (("sources4", CLIENT.ipv4), ("sources6", CLIENT.ipv6))[number == 8]
        obj.maps[sources][source] = 1
        assert obj.programs["filter"].test_run(frame).retval == DROP
        del obj.maps[sources][source]
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
    cpus, scale = os.cpu_count() or 1, MUTANTS / max(1, tried)
    reached = "reached" if used / cpus * scale <= GOAL else "not reached"
    print(
        f"{tried} mutants, {TESTS} tests: {seconds:.0f} s, {used:.0f} s of processors "
        f"({cpus} of them, load {os.getloadavg()[0]:.0f}): {used / cpus * scale:.0f} s for "
        f"{MUTANTS} when nothing else runs; the goal, {GOAL:.0f} s, is {reached}"
    )


if __name__ == "__main__":
    main()
