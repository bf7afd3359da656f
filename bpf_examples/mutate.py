"""Are the suites worth anything? Each program is broken on purpose, and its suite must fail.

    python -m bpf_examples.mutate               # every suite's mutants
    python -m bpf_examples.mutate lru jit       # those of two
    python -m bpf_examples.mutate --markdown mutants.md

A suite's ``mutants.toml`` lists small changes of its sources: a filter dropped, a map's type
swapped, an increment lost. Each is made in a copy of the folder, whose tests then run, natively and
if they all pass in a machine that counts instructions. A mutant is killed when a test fails for
another reason than that the program does not compile or load. One that survives is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from pytest_bpf.commands.mutate import borrowed, first_failure
from pytest_bpf.commands.warm_pytest import WarmPytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SUITES = Path(__file__).parent

PLACES = {"natively": (), "exact": ("--bpf-exact",)}
"""Where a suite runs, one after another until a test fails, and the options for it."""

PAGE = """\
# Broken on purpose

Each program of the reference suites with a mistake in it, and the first test of its suite that
fails: natively, or where none did, in a machine that counts instructions. {killed} of {all} are
found out. `make mutants` makes this page.

"""

OWN = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib")
"""The options of every session."""

SECONDS = 1200.0
"""How long a suite may take: a machine may have to be saved first."""


@dataclass(frozen=True)
class Mutant:
    """A change of one source of a suite: ``old``, which occurs there once, becomes ``new``."""

    suite: str
    file: str
    old: str
    new: str
    why: str

    def apply(self, folder: Path) -> None:
        """Change the source in a copy of the suite; raises `ValueError` when it cannot be done."""
        source = folder / self.file
        text = source.read_text()
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.suite}/{self.file}: {self.old!r} is there {found} times")
        source.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: the test that failed, and where; or what is wrong with it."""

    mutant: Mutant
    killed_by: str = ""
    where: str = ""
    wrong: str = ""


def mutants(suites: Iterable[str] = ()) -> list[Mutant]:
    """Return the mutants of these suites, of all when none is named."""
    folders = [SUITES / name for name in suites] or [
        f.parent for f in SUITES.glob("*/mutants.toml")
    ]
    return [
        Mutant(suite=folder.name, **entry)
        for folder in sorted(folders)
        for entry in tomllib.loads((folder / "mutants.toml").read_text())["mutant"]
    ]


def outcome(sessions: SimpleQueue[WarmPytest], mutant: Mutant) -> Outcome:
    """Make one mutant, and run its suite, by the sessions of ``pytest-bpf mutate``."""
    with borrowed(sessions) as warm:
        folder = warm.folder / mutant.suite
        shutil.rmtree(warm.folder, ignore_errors=True)
        shutil.copytree(SUITES / mutant.suite, folder, ignore=shutil.ignore_patterns("__pycache__"))
        mutant.apply(folder)
        places = (f"--rootdir={folder}", f"--basetemp={warm.folder / 'pytest'}")
        for where, options in PLACES.items():
            arguments = (*OWN, *places, *options, str(folder))
            state, test, message = first_failure(warm, folder, arguments, SECONDS)
            if state == "rejected":
                return Outcome(mutant, wrong=f"does not build: {message}")
            if state == "timed out":
                return Outcome(mutant, wrong=f"takes more than {SECONDS:.0f} s")
            if state == "killed":
                return Outcome(mutant, _without_kernel(test), where)
    return Outcome(mutant, wrong="survives")


def _without_kernel(test: str) -> str:
    """Return a test's name without the kernel's.

    >>> _without_kernel("test_x[hash-6.1.0-56-amd64]"), _without_kernel("test_x[6.1.0-56-amd64]")
    ('test_x[hash]', 'test_x')
    """
    return re.sub(r"(\[|-)\d+\.\d+[^\]]*\]$", lambda m: "]" if m[1] == "-" else "", test)


def markdown(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a page about what became of the mutants."""
    killed = sum(bool(o.killed_by) for o in outcomes)
    head = PAGE.format(killed=killed, all=len(outcomes)).splitlines()
    rows = [
        (f"{o.mutant.suite}/{o.mutant.file}", o.mutant.why, o.wrong or f"`{o.killed_by}`", o.where)
        for o in outcomes
    ]
    rows = [("program", "what is wrong with it", "killed by", "where"), ("---",) * 4, *rows]
    return [*head, *("| " + " | ".join(row) + " |" for row in rows)]


def main() -> int:
    """Run the command; the status is 1 when a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m bpf_examples.mutate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="suites at a time")
    options = parser.parse_args()
    outcomes = []
    every = mutants(options.suites)
    sessions: SimpleQueue[WarmPytest] = SimpleQueue()
    with ExitStack() as ends:
        for _ in range(min(options.jobs, len(every))):
            warm = WarmPytest(SUITES / every[0].suite / every[0].file)
            sessions.put(ends.enter_context(closing(warm)))
        pool = ends.enter_context(ThreadPoolExecutor(options.jobs))
        for found in pool.map(partial(outcome, sessions), every):
            outcomes.append(found)
            mutant, said = found.mutant, found.wrong or f"killed by {found.killed_by}"
            print(
                f"{mutant.suite}/{mutant.file}: {mutant.why}: {said} {found.where}".rstrip(),
                flush=True,
            )
    wrong = sum(bool(found.wrong) for found in outcomes)
    print(f"{len(outcomes) - wrong} of {len(outcomes)} mutants killed")
    if options.markdown:
        options.markdown.write_text("\n".join([*markdown(outcomes), ""]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
