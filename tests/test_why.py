"""A failed test says why: tests that fail by a mistake each name it in the state of BPF."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.plugin.artifacts.section import TITLE
from tests.failing_project import CONFTEST, TESTS, C

if TYPE_CHECKING:
    from pathlib import Path

CAUSES = {
    "test_never_attached": ["program 'count' was never attached"],
    "test_wrong_namespace": [
        "attached in another namespace",
        "veth0 of left received 0, but veth0 of right (5)",
    ],
    "test_port_in_a_map": ["36895, which is 8080 in the other byte order", "bpf_ntohs"],
    "test_port_in_the_program": ["compares with 8080 as the host has it", "bpf_htons(8080)"],
    "test_checksum": ["5 packets dropped in 'right' by UDP_CSUM", "checksum is wrong"],
    "test_full_map": ["map 'ports' (hash) is full, 4 of 4 elements", "E2BIG"],
    "test_lost_events": ["'events' (4096 bytes) were lost", "it was full"],
    "test_wrong_index": ["tail-calls index 3 of 'jumps'", "filled are 2 of 4"],
    "test_wrong_cpu": ["ran on CPU 1 only", "map 'runs'"],
    "test_off_by_one": ["100 bytes are just at a bound", "if (end - data > 100)"],
    "test_wrong_verdict": ["gave XDP_PASS, not XDP_DROP"],
    "test_stale_pin": ["map 'ports' is not new", "/pins/ports"],
    "test_one_lookup_more": ["calls bpf_map_lookup_elem 2 times", "failing.bpf.c:"],
    "test_interface_gone": ["not attached to veth0 of right any more: its interface is gone"],
    "test_all_gone": ["failing.bpf.c was closed", "namespace 'left' is closed"],
    "test_flood_of_printk": ["    count saw packet 99999", "    count saw packet 100000"],
    "test_large_map": ["50000 of 50000 elements, full): 50000 changed"],
    "test_shot_by_tc": [
        "5 packets dropped in 'right' by TC_ACT_SHOT",
        "verdicts of shoot: not counted; --bpf-rerun-traced counts them",
    ],
    "test_detached": ["not attached to veth0", "any more: detached"],
}
"""What the first ten lines of the section say of each test."""


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The section of each test's report; one session has run them all."""
    folder: Path = tmp_path_factory.mktemp("failing")
    (folder / "failing.bpf.c").write_text(C)
    (folder / "test_failing.py").write_text(TESTS)
    (folder / "conftest.py").write_text(CONFTEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert f"{len(CAUSES)} failed" in done.stdout, done.stdout
    lines = (folder / "sections.jsonl").read_text().splitlines()
    return {test: dict(parts).get(TITLE, "") for test, parts in map(json.loads, lines)}


@pytest.mark.parametrize("test", CAUSES)
def test_the_first_lines_name_the_cause(test: str, sections: dict[str, str]) -> None:
    first = "\n".join(sections[test].splitlines()[: 20 if "printk" in test else 10])
    for cause in CAUSES[test]:
        assert cause in first, sections[test]


def test_the_state_names_runs_packets_maps_and_what_was_printed(sections: dict[str, str]) -> None:
    state = sections["test_wrong_verdict"].splitlines()
    assert "program count (xdp, failing.bpf.c): not attached, ran 1 time" in state
    assert "    test_run: 64 bytes, all 0 -> XDP_PASS" in state
    assert "map seen (array): 1 changed since the load" in state
    assert "    [0]: 0 -> 1" in state
    assert "    total: 0 -> 1" in state
    assert "    count saw packet 1" in state
    packets = sections["test_never_attached"].splitlines()
    assert "veth0 of right: 5 packets in, 0 out" in packets
    assert not any("count saw" in line for line in packets)
