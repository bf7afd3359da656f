"""Measuring the programs of ``exact.bpf.c``; run as a module, it prints the figures as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf import Loader, RunCost, Syscalls, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf import Program

SOURCE = Path(__file__).parent / "exact.bpf.c"

FRAME = bytes(12) + b"\x08\x00" + bytes(50)


def drive(program: Program) -> Callable[[], object]:
    """Return what makes a program run a hundred times."""
    if program.type == "xdp":
        return partial(program.test_run, FRAME, repeat=100)
    if program.type == "tracing":
        return lambda: [os.statvfs("/") for _ in range(100)]
    return partial(Syscalls().getpid, 100)


def figures(batches: int = 30) -> dict[str, RunCost]:
    """Measure every program, one after another, each attached alone."""
    found = {}
    with Loader() as bpf:
        obj = bpf.load(SOURCE)
        for name, program in obj.programs.items():
            link = None if program.type == "xdp" else program.attach()
            found[name] = measure(program, drive(program), batches=batches)
            if link:
                link.detach()
    return found


if __name__ == "__main__":
    print(json.dumps({name: asdict(cost) for name, cost in figures().items()}))
