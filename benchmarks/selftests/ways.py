"""The two ways in which the suite is run: `pytest_bpf.plugin.collect`, and a loop in C."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.plugin.collect import conditions
from pytest_bpf.plugin.collect.annotated import Case, MissedExpectationError, run
from pytest_bpf.plugin.collect.expectation import POINTER_VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_bpf.objects import Map

LIBBPF = "PYTEST_BPF_LIBBPF"
FILLED = ("verifier_array_access", "verifier_value_ptr_arith")
"""Files whose maps are filled before a run: the loop in C does not do that."""

SKIPPED = "skipped: "


@dataclass(frozen=True)
class Outcome:
    """What became of one case: "" when as annotated, else why not, or "skipped: ...".

    ``code`` and ``value`` are the loop's: its error code, and the return value ("-": none).
    """

    name: str
    text: str
    code: int
    value: str
    contradicts: bool

    @property
    def is_skipped(self) -> bool:
        """Whether it was not run."""
        return self.text.startswith(SKIPPED)


def libbpf() -> Path | None:
    """Return the libbpf of the suite's own sources; None where it cannot be built."""
    done = subprocess.run([".ci/libbpf"], check=False, capture_output=True, text=True)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def c_loop() -> Path:
    """Return the loop in C, compiled; raises `UnavailableError` without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UnavailableError("needs a C compiler for the loop to compare with: install gcc")
    target = open_cache().folder / "selftests" / "loop"
    source = Path(__file__).with_name("loop.c")
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", str(target), str(source), "-lbpf"], check=True)
    return target


def runnable(case: Case) -> bool:
    """Say whether this machine is one that the case is for."""
    try:
        conditions.check(case.annotations, privileged=case.mode == "privileged")
    except UnavailableError:
        return False
    return True


def name_of(case: Case) -> str:
    """Return the name of a case: ``file/program``, and ``@unpriv``."""
    suffix = "@unpriv" if case.mode == "unprivileged" else ""
    return f"{case.path.stem}/{case.program}{suffix}"


def run_c(loop: Path, wanted: Sequence[tuple[Path, Case]]) -> list[tuple[int, str]]:
    """Return the error code and the return value ("-" for none) of each case by the loop in C."""
    lines = (
        f"{compiled} {case.program} {case.mode[0]} {case.annotations.log_level} "
        f"{case.annotations.flags} {','.join(case.auxiliary) or '-'} "
        f"{case.btf_path or '-'}\n"
        for compiled, case in wanted
    )
    environment = dict(os.environ)
    if chosen := environment.get(LIBBPF):
        environment["LD_LIBRARY_PATH"] = str(Path(chosen).parent)
    done = subprocess.run(
        [loop],
        input="".join(lines),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    answers = (line.split() for line in done.stdout.splitlines())
    return [(int(code), value) for code, value in answers]


def fill(maps: Mapping[str, Map]) -> None:
    """Fill the maps that two of the files expect to be filled: ``struct test_val``, 48 bytes."""
    for name in ("map_array_ro", "map_array_48b"):
        if name in maps and maps[name].value_size == 48:
            maps[name][0] = struct.pack("=I6iI4i", 28, *[0] * 6, 0xABCDEF12, *[0] * 4)


def run_ours(wanted: Sequence[tuple[Path, Case]]) -> list[str]:
    """Return for each case "", or how its expectation is missed, or "skipped: ..."."""
    outcomes = []
    for _, case in wanted:
        try:
            run(case, fill)
            outcomes.append("")
        except MissedExpectationError as error:
            outcomes.append(str(error).splitlines()[0])
        except UnavailableError as error:
            outcomes.append(f"{SKIPPED}{error}")
        except BpfError as error:
            outcomes.append(f"error: {error}")
    return outcomes


def contradicts(case: Case, code: int, value: str, outcome: str) -> bool:
    """Say whether an outcome of ours cannot be, given the answer that the loop in C got."""
    if outcome.startswith(SKIPPED):
        return False
    expected = case.expectation
    refused = "was refused" in outcome or "cannot open" in outcome
    loaded = "it was loaded" in outcome
    if code == 0:
        compared = case.path.stem not in FILLED and expected.retval not in {None, *POINTER_VALUES}
        wrong = compared and value not in {"-", str(ctypes.c_int32(expected.retval or 0).value)}
        return refused or (expected.failure and not loaded) or (not outcome and wrong)
    return loaded or (not expected.failure and not refused)


def both(wanted: Sequence[tuple[Path, Case]], loop: Path) -> list[Outcome]:
    """Run each case in both ways; say on standard error how long each took."""
    begin = time.monotonic()
    outcomes = run_ours(wanted)
    middle = time.monotonic()
    runs = [pair for pair in wanted if runnable(pair[1])]
    answers = dict(zip(map(id, runs), run_c(loop, runs), strict=True))
    end = time.monotonic()
    print(f"pytest-bpf {middle - begin:.1f} s, C {end - middle:.1f} s", file=sys.stderr)
    return [
        Outcome(
            name_of(pair[1]),
            outcome,
            *answers.get(id(pair), (0, "-")),
            id(pair) in answers and contradicts(pair[1], *answers[id(pair)], outcome),
        )
        for pair, outcome in zip(wanted, outcomes, strict=True)
    ]
