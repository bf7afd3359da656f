"""Sessions of their own in which budgets and baselines are tried, and what they said."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.sessions import run_in

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");
SEC("xdp") int look(struct xdp_md *ctx)
{
    __u64 now = bpf_ktime_get_ns();
    bpf_ringbuf_output(&events, &now, sizeof(now), 0);
    return XDP_PASS;
}
SEC("xdp") int other(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
"""

PRELUDE = """
import pytest
from pytest_bpf import BudgetError, BudgetWarning
from pytest_bpf.costs.figures.figure import Figure

budget = pytest.mark.bpf_budget

def drive(bpf, runs=100, source="look.bpf.c"):
    obj = bpf.load(source)
    obj.programs["look"].test_run(bytes(64), repeat=runs)
    return obj

def batches(value, lower, upper, name="look"):
    samples, beside = (value,) * 9, (46.0,) * 9
    return Figure("run_time", f"prog {name}", value, lower, upper, "clock", samples, beside)

"""


@dataclass(frozen=True)
class Session:
    """What a session said: of each test, in its section, in JUnit's file."""

    output: str
    messages: dict[str, str]
    properties: dict[str, dict[str, str]]

    @property
    def failed(self) -> set[str]:
        return set(self.messages)

    @property
    def section(self) -> list[str]:
        """The section's lines, with single spaces."""
        _, _, rest = self.output.partition("bpf: budgets and baselines")
        lines = rest.split("\n", 1)[-1].split("\n===")[0].splitlines()
        return [re.sub(r"\s+", " ", line) for line in lines] if rest else []

    def line(self, test: str) -> str:
        (line,) = [line for line in self.section if f"::{test} " in line]
        return line


def session_in(folder: Path, text: str, *args: str) -> Session:
    """Run a session of tests of these programs, which ``.text`` is the source of."""
    (folder / "look.bpf.c").write_text(SOURCE)
    (folder / "again.bpf.c").write_text(SOURCE)
    (folder / "test_it.py").write_text(PRELUDE + text)
    return session_of(folder, "-p", "no:cacheprovider", *args)


def session_of(folder: Path, *args: str, python: str = sys.executable) -> Session:
    """Run the session of a folder's tests."""
    done = run_in(folder, "--junitxml=junit.xml", *args, python=python)
    messages, properties = {}, {}
    assert (folder / "junit.xml").exists(), done.stdout + done.stderr
    for case in ET.parse(folder / "junit.xml").iter("testcase"):
        name = case.get("name", "")
        for failure in (*case.findall("failure"), *case.findall("error")):
            messages[name] = failure.text or ""
        found = case.iter("property")
        properties[name] = {p.get("name", ""): p.get("value", "") for p in found}
    return Session(done.stdout, messages, properties)


def refused(folder: Path, *args: str) -> str:
    """Return why pytest does not even begin."""
    done = run_in(folder, *args)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    return done.stderr.strip().removeprefix("ERROR: ")
