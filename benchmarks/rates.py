"""How often a comparison of two runs is wrong: false alarms, and changes that are not found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.rates_run import KINDS, SOURCE
from benchmarks.report import Report, number
from pytest_bpf.budgets.change import ATTEMPTS, Outcome, Samples, change, combine, is_too_disturbed
from pytest_bpf.compile import compile_source
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernels import lookup
from pytest_bpf.vm import qemu

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 260
"""How many groups of runs, each of which is one comparison a kind of program without a change."""

LOADS = 5
"""How often a run loads and measures everything: a process of its own."""

ALLOWED = 0.05
"""The change that is allowed natively; in exact mode none is."""

EXACT_RUNS, EXACT_LOADS = 5, 11
"""How many machines are restored for exact mode, and the loads in each."""

BATCHES, EXACT_BATCHES = 30, 15
KERNEL = "debian"

Loaded = dict[str, Samples]

Compared = list[list[tuple[Samples, Samples]]]
"""By comparison, the runs before and after of each load that it may take."""


def measure(rounds: int) -> Report:
    """Compare ``rounds`` times natively, and in exact mode as often as is asked of it."""
    report = Report(
        "Rates of wrong answers",
        (
            *("program", "comparisons", "unchanged: failed", "undecided"),
            *("changed by", "changed: found", "undecided", "missed"),
        ),
    )
    report.remarks.append(
        f"Natively, {ALLOWED:.0%} allowed; the change is a tenth more of the same work. With a "
        "baseline the loads that are compared are of two processes, minutes apart; in turn "
        f"(--bpf-against) each is of its own and follows the other. Up to {ATTEMPTS} decide."
    )
    loads = _native(rounds)
    for how, comparisons in (("with a baseline", _with_baselines), ("in turn", _in_turn)):
        for kind, title in KINDS.items():
            pairs = comparisons(loads, kind, "_more")
            report.rows.append((f"{title}, {how}", *_cells(*pairs)))
    report.remarks.append(_load())
    try:
        exact = _exact()
    except UnavailableError as error:
        report.remarks.append(f"Exact mode not measured: {error}.")
        return report
    report.remarks.append(
        f"In exact mode, nothing allowed; the change is one instruction. {EXACT_RUNS} restored "
        f"machines with Debian's kernel, {EXACT_LOADS} loads in each."
    )
    for kind, title in KINDS.items():
        report.rows.append((f"{title}, exact mode", *_exact_cells(exact, kind)))
    return report


# -- natively --------------------------------------------------------------------------------------


def _native(rounds: int) -> list[Loaded]:
    """Return loads in the order they were made, ``rounds`` for the baselines and as many after."""
    needed = rounds + rounds + ATTEMPTS
    found: list[Loaded] = []
    while len(found) < needed:
        found += _run("_more", LOADS, BATCHES)
        _progress(len(found), needed)
    return found


def _with_baselines(loads: list[Loaded], kind: str, suffix: str) -> tuple[Compared, Compared]:
    """Compare each load of the first half with loads of the second: another process, minutes on.

    Returns the comparisons without a change, and those with one.
    """
    half = (len(loads) - ATTEMPTS) // 2
    unchanged, changed = [], []
    for at in range(half):
        tries = [load[kind] for load in loads[at : at + ATTEMPTS]]
        before = next((run for run in tries if not is_too_disturbed(run)), tries[-1])
        again = loads[at + half : at + half + ATTEMPTS]
        unchanged.append([(before, load[kind]) for load in again])
        changed.append([(before, load[kind + suffix]) for load in again])
    return unchanged, changed


def _in_turn(loads: list[Loaded], kind: str, suffix: str) -> tuple[Compared, Compared]:
    """Compare loads with those that come next."""
    unchanged, changed = [], []
    for at in range(len(loads) - 2 * ATTEMPTS + 1):
        taken = loads[at : at + 2 * ATTEMPTS]
        turns = list(zip(taken[::2], taken[1::2], strict=True))
        unchanged.append([(before[kind], after[kind]) for before, after in turns])
        changed.append([(before[kind], after[kind + suffix]) for before, after in turns])
    return unchanged, changed


def _cells(without: Compared, with_: Compared) -> tuple[str, ...]:
    """Count what comes of comparisons without a change, and of those with one."""
    unchanged, changed = (Counter(map(_settled, each)) for each in (without, with_))
    shares = sorted(_value(after) / _value(before) - 1 for (before, after), *_ in with_)
    middle = shares[len(shares) // 2]
    return (
        str(len(without)),
        str(unchanged["slower"]),
        str(unchanged["inconclusive"]),
        f"{middle:+.1%}",
        str(changed["slower"]),
        str(changed["inconclusive"]),
        str(changed["same"] + changed["faster"]),
    )


def _settled(pairs: Sequence[tuple[Samples, Samples]]) -> str:
    """Compare one pair after another, until they settle it."""
    outcomes: list[Outcome] = []
    for before, after in pairs:
        outcomes.append(change(before, after, ALLOWED * _value(before)).verdict)
        found = combine(outcomes)
        if found is not None:
            return found
    raise AssertionError(f"{len(pairs)} loads settle nothing")


def _value(of: Samples) -> float:
    """Return the lower decile, which is what a figure of these samples says, near enough."""
    return sorted(of.values)[len(of.values) // 10]


# -- in exact mode ---------------------------------------------------------------------------------


def _exact() -> list[list[Loaded]]:
    """Return the loads of each restored machine."""
    qemu.program()
    lookup.find(KERNEL)
    compile_source(SOURCE)
    python = (sys.executable, "-m")
    machine = (*python, "pytest_bpf.vm", "--exact", "--kernel", KERNEL, "--")
    found = []
    for number_ in range(EXACT_RUNS):
        found.append(_run("_1", EXACT_LOADS, EXACT_BATCHES, *machine))
        _progress(number_ + 1, EXACT_RUNS)
    return found


def _exact_cells(runs: list[list[Loaded]], kind: str) -> tuple[str, ...]:
    """Compare each load with one of the next machine."""
    unchanged: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    shares = []
    for run, following in zip(runs, runs[1:] + runs[:1], strict=True):
        for load, after in zip(run, following, strict=True):
            before = load[kind]
            unchanged[change(before, after[kind], 0.0, drift=0).verdict] += 1
            more = change(before, after[f"{kind}_1"], 0.0, drift=0)
            changed[more.verdict] += 1
            shares.append(more.value)
    middle = sorted(shares)[len(shares) // 2]
    return (
        str(len(shares)),
        str(unchanged["slower"]),
        str(unchanged["inconclusive"]),
        f"{number(middle)} instructions",
        str(changed["slower"]),
        str(changed["inconclusive"]),
        str(changed["same"] + changed["faster"]),
    )


# -- what they share -------------------------------------------------------------------------------


def _run(suffix: str, loads: int, batches: int, *through: str) -> list[Loaded]:
    """Measure in a process of its own, started by the command ``through``."""
    python = (*through, sys.executable, "-m", "benchmarks.rates_run")
    command = (*python, suffix, str(loads), "--batches", str(batches))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    parts = json.loads(done.stdout)
    return [{name: Samples(*both) for name, both in load.items()} for load in parts]


def _load() -> str:
    return f"Meanwhile the load of the machine was {os.getloadavg()[2]:.1f} (of 15 minutes)."


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{time.strftime('%X')} {done} of {of} ", end="", file=sys.stderr, flush=True)
