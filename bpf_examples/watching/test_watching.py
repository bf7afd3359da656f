"""What ``perf stat``, ``perf record`` and ``watch bpftool`` show by hand, as values of a test."""

from __future__ import annotations

import bisect
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import UnavailableError
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys.perf_event import TRACEPOINT, Attributes, open_event
from pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs
from pytest_bpf.reports import top

if TYPE_CHECKING:
    from pytest_bpf import Loader, Map, Object, Program, Syscalls
    from pytest_bpf.budgets.claims import ClaimCheck

FRAME = bytes(64)
CALLS = 1000
ENOUGH = 100
"""Samples, of which a share can be told."""


@pytest.fixture
def busy(bpf: Loader) -> Object:
    """The programs that are watched."""
    return bpf.load("busy.bpf.c", globals={"tgid": os.getpid()})


@pytest.mark.bpf_requires(attach="tracepoint")
def test_calls_of_this_process_are_counted(
    bpf: Loader, busy: Object, bpf_syscalls: Syscalls
) -> None:
    others = bpf.load("busy.bpf.c", globals={"tgid": os.getppid()})
    with others.programs["on_getpid"].attach(), busy.programs["on_getpid"].attach():
        bpf_syscalls.getpid(CALLS)
    assert busy.globals["calls"] == CALLS
    assert others.globals["calls"] < CALLS


@pytest.mark.bpf_requires(program_type="sched_cls")
def test_one_program_works_and_the_other_does_not(busy: Object) -> None:
    answers = []
    for name in ("heavy", "light"):
        busy.programs[name].test_run(FRAME)
        answers.append(busy.globals["answer"])
    assert answers[1] == len(FRAME) != answers[0]


@pytest.mark.bpf_requires(attach="perf_event", program_type="sched_cls")
def test_samples_that_find_no_room_are_counted(bpf: Loader, busy: Object) -> None:
    profile = bpf.load("profile.bpf.c", globals={"tgid": os.getpid()}, max_entries={"samples": 1})
    end = time.process_time() + 20
    with profile.programs["sample"].attach(frequency=997):
        while not profile.globals["missed"] and time.process_time() < end:
            busy.programs["heavy"].test_run(FRAME, repeat=2000)
    assert profile.globals["missed"] > 0
    assert len(profile.maps["samples"]) == 1


@pytest.mark.bpf_requires(attach="tracepoint")
@pytest.mark.bpf_claim(
    "perf stat -e 'bpf:*' counts what BPF programs do", row=16, verdict="refuted"
)
def test_there_are_no_such_tracepoints_but_the_kernel_counts_runs(
    busy: Object, bpf_syscalls: Syscalls, bpf_claim: ClaimCheck
) -> None:
    program = busy.programs["on_getpid"]
    with statistics(), program.attach():
        bpf_syscalls.getpid(CALLS)
    assert busy.globals["calls"] == CALLS
    assert program.run_cnt >= CALLS  # other processes' too
    groups = with_tracefs(tracepoint_groups)
    named = ", ".join(sorted(group for group in groups if "bpf" in group)) or "none"
    bpf_claim(
        "bpf" in groups,
        f"no tracepoints bpf:* (with bpf in their name: {named}); run_cnt saw all {CALLS:,} runs",
    )


@pytest.mark.bpf_requires(attach=["tracepoint", "perf_event"])
@pytest.mark.bpf_claim("perf stat counts a tracepoint's hits", row=16, verdict="holds in part")
def test_perf_counts_hits_that_no_program_hides(
    busy: Object, bpf_syscalls: Syscalls, bpf_claim: ClaimCheck
) -> None:
    number = with_tracefs(tracepoint_number, "syscalls/sys_enter_getpid")
    program = busy.programs["on_getpid"]
    with opened(Attributes(type=TRACEPOINT, config=number)) as event:
        alone = hits(event, bpf_syscalls)
        with program.attach():
            beside = hits(event, bpf_syscalls)
    assert busy.globals["calls"] == CALLS
    bpf_claim(
        {"alone": alone == CALLS, "beside a program that returns 0": beside == CALLS},
        f"of {CALLS:,} hits {alone:,} alone, and {beside:,} beside a program that returns 0",
    )


@pytest.mark.bpf_requires(attach="perf_event", program_type="sched_cls")
@pytest.mark.bpf_claim("perf record shows which program takes the time", row=16)
def test_profile_shows_the_program_that_takes_the_time(
    bpf: Loader, busy: Object, bpf_claim: ClaimCheck
) -> None:
    profile = bpf.load("profile.bpf.c", globals={"tgid": os.getpid()})
    heavy, light = busy.programs["heavy"], busy.programs["light"]
    samples, known = profile.maps["samples"], functions()
    end = time.process_time() + 20
    with profile.programs["sample"].attach(frequency=997):
        found: Counter[str] = Counter()
        while found.total() < ENOUGH and time.process_time() < end:
            heavy.test_run(FRAME, repeat=2000)
            light.test_run(FRAME, repeat=2000)
            found = by_symbol(samples, *known)
    assert profile.globals["missed"] == 0
    in_heavy, in_light = (found[symbol(program)] for program in (heavy, light))
    assert found.total() >= ENOUGH
    bpf_claim(
        in_heavy > found.total() / 2 > in_light,
        f"{in_heavy} of {found.total()} samples in {symbol(heavy)}, {in_light} in the other",
    )


@pytest.mark.bpf_requires(program_type="sched_cls")
@pytest.mark.bpf_claim("watching prog show and map show tells what is going on", row=16)
def test_live_table_shows_runs_time_and_memory(
    busy: Object, bpf_claim: ClaimCheck, capsys: pytest.CaptureFixture[str]
) -> None:
    heavy, enough = busy.programs["heavy"], Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_until, enough, heavy)
        assert top.main(["--json", "--interval", "0.2"]) == 0
        enough.set()
        running.result()
    told = json.loads(capsys.readouterr().out)
    shown = {program["id"]: program for program in told["programs"]}
    row, idle = shown[heavy.id], shown[busy.programs["light"].id]
    assert idle["runs"] == 0
    assert row["memory"] > 0
    bpf_claim(
        row["name"] == "heavy" and row["runs"] > 0 and row["cpu"] > 0,
        f"pytest-bpf top: {row['runs_per_second']:,.0f} runs/s, {row['ns_per_run']:.0f} ns each, "
        f"{row['cpu']:.0%} of a CPU",
    )


def run_until(enough: Event, program: Program) -> None:
    """Run a program again and again."""
    while not enough.is_set():
        program.test_run(FRAME, repeat=1000)


def tracepoint_groups() -> set[str]:
    """Return the names before the colon of all tracepoints."""
    folder = tracefs()
    assert folder
    return {group.name for group in (folder / "events").iterdir() if group.is_dir()}


def tracepoint_number(name: str) -> int:
    """Return what perf events call a tracepoint."""
    folder = tracefs()
    assert folder
    return int((folder / "events" / name / "id").read_text())


def opened(event: Attributes) -> FileIO:
    """Open a perf event that counts in this thread."""
    try:
        return FileIO(open_event(event, pid=0))
    except OSError as error:
        raise UnavailableError(f"not measured: no such perf event here: {error}") from None


def hits(event: FileIO, bpf_syscalls: Syscalls) -> int:
    """Return what a perf event counts of so many calls."""
    before = int.from_bytes(event.read(8), "little")
    bpf_syscalls.getpid(CALLS)
    return int.from_bytes(event.read(8), "little") - before


def symbol(program: Program) -> str:
    """Return how the kernel and perf call a program's machine code."""
    return f"bpf_prog_{program.tag}_{program.name}"


def functions() -> tuple[list[int], list[str]]:
    """Return where the kernel's functions begin, ascending, and their names; programs' too."""
    listed = (line.split() for line in Path("/proc/kallsyms").read_text().splitlines())
    found = sorted((int(address, 16), name) for address, _, name, *_ in listed)
    if not found or not found[-1][0]:
        raise UnavailableError("not measured: /proc/kallsyms has no addresses (kptr_restrict)")
    addresses, names = zip(*found, strict=True)
    return list(addresses), list(names)


def by_symbol(samples: Map, addresses: list[int], names: list[str]) -> Counter[str]:
    """Return the samples by function of the kernel; those of user space are left out."""
    found: Counter[str] = Counter()
    for address, count in samples.items():
        if address >> 63:
            found[names[bisect.bisect(addresses, address) - 1]] += count
    return found
