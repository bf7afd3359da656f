"""What counting lines costs, over the BPF sources of the reference suites, and of other folders.

``python -m benchmarks.lines [FOLDER...]``: instructions that the verifier processes with counters
and without, how long programs run with them, the processor's time of a session of 100 tests, and
the time to read the counters.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import bpf_examples
from pytest_bpf.commands.sources import find_sources
from pytest_bpf.coverage.recorder import Recorder
from pytest_bpf.errors import BpfError
from pytest_bpf.loader import Loader
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.objects import Program

ROUNDS = 3

RUNS = 15

SLICE_NS = 2_000_000
"""How long one of the runs in turn takes at least."""

COUNTERS = 1000

TESTS = """\
import pytest

@pytest.mark.parametrize("number", range(100))
def test_it(bpf, number):
    program = bpf.load({source!r}).programs["filter"]
    for length in (14, 34, 64):
        program.test_run(bytes(length))
"""


def verified(folder: Path) -> list[float]:
    """Return by program how many times the instructions are that the verifier processes."""
    ratios = []
    for source in find_sources(folder):
        figures = []
        for recorder in (None, Recorder()):
            with Loader(on_compile=lambda _: None, lines=recorder) as loader:
                try:
                    programs = loader.load(source).programs.values()
                    figures.append({p.name: p.verified_insns for p in programs})
                except BpfError:
                    break
        if len(figures) == 2:
            ratios += [figures[1][name] / count for name, count in figures[0].items() if count]
    return ratios


def run_times(folder: Path) -> dict[str, list[float]]:
    """Return by engine how many times as long programs run, each with itself in turn.

    Programs that `BPF_PROG_RUN` repeats: those of packets, an IPv4 UDP one here.
    """
    ratios: dict[str, list[float]] = {"clang": [], "instructions": []}
    for source in find_sources(folder):
        with ExitStack() as loaders:
            objects = []
            for recorder in (None, Recorder(), _Bytecode()):
                loader = Loader(on_compile=lambda _: None, lines=recorder)
                try:
                    objects.append(loaders.enter_context(loader).load(source))
                except BpfError:
                    break
            if len(objects) < 3:
                continue
            for name, program in objects[0].programs.items():
                if program.kind.test_run != "packet":
                    continue
                three = [obj.programs[name] for obj in objects]
                for engine, ratio in zip(ratios, _ratios(three), strict=True):
                    ratios[engine].append(ratio)
                    print(f"{source.parent.name}/{source.name} {name} {engine}: x {ratio:.2f}")
    return ratios


class _Bytecode(Recorder):
    """Counts by instructions alone."""

    def counting_build(self, source: Path, compile_with: object, label: str = "") -> None:  # noqa: ARG002
        """Return none."""
        return


def _ratios(programs: Sequence[Program]) -> list[float]:
    """Return how many times as long the others run as the first one, run in turn."""
    packet = udp_frame(dport=53)
    repeat = 100
    while programs[0].test_run(packet, repeat=repeat).duration_ns * repeat < SLICE_NS:
        repeat *= 2
    rounds = [
        [program.test_run(packet, repeat=repeat).duration_ns for program in programs]
        for _ in range(RUNS)
    ]
    return [
        statistics.median(times[other] / max(times[0], 1) for times in rounds)
        for other in range(1, len(programs))
    ]


def session(*options: str) -> float:
    """Return the processor's time of a session of 100 tests, in seconds."""
    source = Path(bpf_examples.__file__).parent / "xdp_filter" / "filter.bpf.c"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_it.py").write_text(TESTS.format(source=str(source)))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        before = os.times()
        subprocess.run(
            [*command, *options, folder], cwd=folder, stdout=subprocess.DEVNULL, check=True
        )
        after = os.times()
    user, system = after.children_user, after.children_system
    return user + system - before.children_user - before.children_system


def reading() -> float:
    """Return how long reading 1,000 counters takes, in milliseconds."""
    lines = "".join(f"\tif (skb->len > {n})\n\t\tskb->mark += 1;\n" for n in range(COUNTERS))
    text = (
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
        'char LICENSE[] SEC("license") = "GPL";\n'
        'SEC("tc")\nint program(struct __sk_buff *skb)\n{\n' + lines + "\treturn 0;\n}\n"
    )
    with Loader(lines=Recorder()) as loader:
        recording = loader.load(text, name="many").recording
        rounds = []
        for _ in range(ROUNDS * 10):
            begin = time.perf_counter()
            recording.counts()
            rounds.append(time.perf_counter() - begin)
    return statistics.median(rounds) * 1000 * COUNTERS / (COUNTERS + 1)


def _spread(ratios: Sequence[float]) -> str:
    ordered = sorted(ratios)
    return (
        f"{len(ordered)} programs, x {statistics.median(ordered):.2f} (median), "
        f"x {ordered[len(ordered) * 9 // 10]:.2f} (90th percentile), x {ordered[-1]:.2f} at most"
    )


def main(folders: list[str]) -> None:
    """Measure and print."""
    for folder in map(Path, folders or [str(Path(bpf_examples.__file__).parent)]):
        ratios = sorted(verified(folder))
        if ratios:
            print(f"{folder.name}, verified instructions: {_spread(ratios)}")
        for engine, times in run_times(folder).items():
            if times:
                print(f"{folder.name}, time of a run with counters by {engine}: {_spread(times)}")
    session(), session("--bpf-cov")  # what is compiled once
    ratios = [session("--bpf-cov") / session() for _ in range(ROUNDS)]
    print(f"a session of 100 tests: x {min(ratios):.2f} to x {max(ratios):.2f} of the CPU time")
    print(f"reading {COUNTERS} counters: {reading():.3f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
