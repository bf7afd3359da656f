"""``python -m benchmarks.selftests``, as root: run the kernel's own annotated programs.

Each is run by pytest-bpf and by a loop in C over the same libbpf. It fails when the two disagree,
and when a program is answered otherwise than annotated and is not in the kernel's list of
differences. With ``--kernel 6.12`` all of that happens on Debian's 6.12 kernel, in a machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.selftests import differences, sources, ways
from benchmarks.selftests.ways import Outcome
from pytest_bpf.cache import open_cache
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.features.privilege import privilege

HOST, SUITE_KERNEL = "host", "6.12"
GOAL = 99.5


def main() -> int:
    """Run the command line; return 1 for a disagreement or a difference in no list."""
    chosen = _arguments()
    if chosen.inside:
        return _inside(chosen.inside)
    library = ways.libbpf()
    if library:
        os.environ[ways.LIBBPF] = str(library)
    if missing := privilege():
        print(missing, file=sys.stderr)
        return 1
    try:
        loop, suite = ways.c_loop(), sources.suite(chosen.files)
        image = None if chosen.kernel == HOST else _image(chosen.kernel)
    except (UnavailableError, subprocess.CalledProcessError) as error:
        print(f"Skipped: the kernel's annotated programs: {error}")
        return 0
    if image is None:
        release, outcomes = os.uname().release, ways.both(suite.cases, loop)
    else:
        release, outcomes = _in_a_machine(image, suite, loop)
    return _report(release, suite, outcomes, has_own_libbpf=library is not None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selftests", description=__doc__)
    parser.add_argument("--kernel", default=HOST, help="'host', '6.12', or what --bpf-kernel takes")
    parser.add_argument(
        "--files", nargs="+", default=["*"], metavar="PATTERN", help="of these names only"
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _image(kernel: str) -> str:
    return str(sources.kernel()) if kernel == SUITE_KERNEL else kernel


def _in_a_machine(image: str, suite: sources.Suite, loop: Path) -> tuple[str, list[Outcome]]:
    """Run the suite in a machine; return its kernel's release and the outcomes."""
    with open_cache().workspace() as work:
        (work / "suite").write_bytes(pickle.dumps((suite.cases, loop)))
        inside = [sys.executable, "-m", "benchmarks.selftests", "--inside", str(work)]
        machine = ["--kernel", image, "--cpus", "1", "--writable", str(work)]
        subprocess.run([sys.executable, "-m", "pytest_bpf.vm", *machine, "--", *inside], check=True)
        answer = json.loads((work / "outcomes").read_text(encoding="utf-8"))
    return answer["release"], [Outcome(**outcome) for outcome in answer["outcomes"]]


def _inside(work: Path) -> int:
    """Run the suite that a folder has, and leave the outcomes there."""
    cases, loop = pickle.loads((work / "suite").read_bytes())
    outcomes = [dataclasses.asdict(outcome) for outcome in ways.both(cases, loop)]
    answer = {"release": os.uname().release, "outcomes": outcomes}
    (work / "outcomes").write_text(json.dumps(answer), encoding="utf-8")
    return 0


def _report(
    release: str, suite: sources.Suite, outcomes: list[Outcome], *, has_own_libbpf: bool
) -> int:
    different = {one.name: one.text for one in outcomes if one.text and not one.is_skipped}
    fine = {one.name for one in outcomes if not one.text}
    skips = Counter(one.text for one in outcomes if one.is_skipped)
    apart = [one.name for one in outcomes if one.contradicts]
    run = len(different) + len(fine)
    print(f"On Linux {release}, with {'the' if has_own_libbpf else 'another'} libbpf", end=" ")
    print(f"{'of the suite' if has_own_libbpf else 'than the suite has'}:")
    files = len({compiled for compiled, _ in suite.cases})
    print(f"  {files} files compile, {len(suite.broken)} do not")
    for name, why in suite.broken:
        print(f"    {name}: {why}")
    share = 100 * len(fine) / run if run else 0
    print(f"  {run} programs and modes run, {len(fine)} as annotated ({share:.2f} %)")
    for why, count in skips.most_common():
        print(f"  {count} {why}")
    print(f"  {len(apart)} where the loop in C gets another answer {' '.join(apart)}".rstrip())
    listed = differences.file_for(release)
    if not listed.exists() or not has_own_libbpf:
        why = f"{listed.name} is not there" if has_own_libbpf else "it is for another libbpf"
        print(f"  {len(different)} otherwise than annotated; held against no list: {why}")
        _show(different)
        return bool(apart)
    compared = differences.compare(differences.read(listed), different, fine)
    print(f"  {len(different)} otherwise than annotated, {len(compared.new)} of them in no list")
    _show({name: different[name] for name in compared.new})
    if compared.stale:
        print(f"  in {listed.name}, but as annotated now: {' '.join(compared.stale)}")
    return bool(apart or compared.new or suite.broken)


def _show(different: dict[str, str]) -> None:
    for name, why in different.items():
        print(f"    {name}: {why}")


if __name__ == "__main__":
    sys.exit(main())
