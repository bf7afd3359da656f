"""The same programs, measured in exact mode in machines that booted anew, and in restored ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import Report
from pytest_bpf.compile import compile_source
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernels import lookup
from pytest_bpf.vm import qemu, state
from tests.guest.figures import SOURCE

ROUNDS = 3
"""How many boots, and how many restores."""

KERNEL = "debian"

ROWS = {
    "empty": "empty kprobe",
    "hash_update": "hash look-up and update (kprobe)",
    "per_cpu": "per-CPU counter (tracepoint)",
    "ring_write": "ring-buffer write, 16 bytes (kprobe)",
    "ethertype": "XDP, reads a packet's type (BPF_PROG_RUN)",
    "plus_0": "XDP, returns",
    "plus_1": "and 1 addition more",
    "plus_5": "and 5",
    "plus_50": "and 50",
}

Figures = dict[str, dict[str, Any]]


def measure(rounds: int) -> Report:
    """Boot and restore ``rounds`` times each; one row a program."""
    report = Report("Exact mode, instructions per run", ("program", *_columns(rounds), "the same"))
    try:
        qemu.program()
        kernel = lookup.find(KERNEL)
    except UnavailableError as error:
        report.remarks.append(f"Not measured: {error}.")
        return report
    assert kernel is not None
    compile_source(SOURCE)
    machine = qemu.Machine(kernel, exact=True)
    boots = []
    for _ in range(rounds):
        state.obtain(machine, _path(), renew=True).__exit__()
        boots.append(_figures())
    restores = [_figures() for _ in range(rounds)]
    report.remarks.append(f"Kernel {kernel}, medians of 30 batches.")
    for name, title in ROWS.items():
        of_boots, of_restores = (
            [run[name]["per_run"] for run in runs] for runs in (boots, restores)
        )
        found = sorted({*of_boots, *of_restores})
        cells = (
            ", ".join(f"{one:.10g}" for one in sorted({*ones})) for ones in (of_boots, of_restores)
        )
        report.rows.append((title, *cells, "yes" if len(found) == 1 else "NO"))
    return report


def _columns(rounds: int) -> tuple[str, str]:
    return f"in {rounds} boots", f"in {rounds} restores"


def _path() -> list[str]:
    """Return ``sys.path`` as `pytest_bpf.vm` gives it: without the folder this was started in."""
    return [str(Path(folder).absolute()) for folder in sys.path[1:]]


def _figures() -> Figures:
    """Measure in a machine restored for it."""
    python = (sys.executable, "-m")
    machine = (*python, "pytest_bpf.vm", "--exact", "--kernel", KERNEL, "--")
    command = (*machine, *python, "tests.guest.figures")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: Figures = json.loads(done.stdout)
    return found
