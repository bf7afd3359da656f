"""``pytest-bpf mutate``: programs are broken on purpose, and the tests must see it."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from pytest_bpf.cache import Cache
from pytest_bpf.commands.mutants import Mutant, mutants, tokens
from pytest_bpf.commands.mutants_page import page
from pytest_bpf.commands.sources import find_sources
from pytest_bpf.commands.warm_pytest import WarmPytest
from pytest_bpf.compile import find_compiler
from pytest_bpf.compile.preamble import STORES
from pytest_bpf.errors import BpfError
from pytest_bpf.fuzz import DifferenceError, check_equivalence
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SURVIVED, FAILED = 1, 2
"""Exit statuses: the score is too low; the tests cannot be run."""

REJECTED = re.compile(
    r'(?:failed on setup with ")?(?:\w+\.)*'
    r"(?:CompileError|LoadError|VerifierError|AttachError|UnknownNameError)\b"
)
"""How the message of a test begins that could not compile, load or attach the program."""

LEFT_OUT = shutil.ignore_patterns(".git", "__pycache__", ".venv", "venv", ".tox", "node_modules")

INPUTS = 3000
"""How many inputs a survivor is held against the program with."""

RACES = frozenset({"atomic made plain", "map type swapped"})
"""The mistakes that may show on two CPUs at once alone, which takes ten times as long to try."""

SECONDS = 120.0
"""How long the tests may take for one mutant: one that loops for ever is killed by that."""

LONG = 86_400.0
"""How long they may take as they are."""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``state`` is killed, survived, rejected or timed out.

    ``by`` is the test that failed first.
    """

    file: str
    mutant: Mutant
    state: str
    by: str = ""

    def as_dict(self, text: str) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "file": self.file,
            "line": self.mutant.line,
            "what": self.mutant.what,
            "state": self.state,
            "by": self.by,
            "diff": self.mutant.diff(text, self.file),
        }


def main(arguments: Sequence[str]) -> int:
    """Run the command; the status is 1 when the score is below ``--fail-under``."""
    own, tests = list(arguments), []
    if "--" in own:
        at = own.index("--")
        own, tests = own[:at], own[at + 1 :]
    options = parser().parse_args(own, argparse.Namespace(tests=tests))
    root = Path.cwd()
    try:
        return _run(root, options)
    except (BpfError, ValueError) as error:
        print(f"pytest-bpf mutate: {error}", file=sys.stderr)
        return FAILED


def _run(root: Path, options: argparse.Namespace) -> int:
    sources = list(_sources(options.sources))
    lines = _reached(root, options.tests)
    chosen = _choose(root, sources, lines, options)
    texts = {str(path.relative_to(root)): path.read_text("utf-8") for path in sources}
    outcomes = []
    with ExitStack() as ends:
        sessions: SimpleQueue[WarmPytest] = SimpleQueue()
        start = partial(_start, root, options.tests, sources[0], ends)
        with ThreadPoolExecutor(options.jobs) as pool:
            for warm in pool.map(start, range(min(options.jobs, len(chosen)))):
                sessions.put(warm)
        ends.enter_context(_beginnings())
        pool = ends.enter_context(ThreadPoolExecutor(options.jobs))
        attempt = partial(_try, root, options.tests, sessions)
        for outcome in pool.map(attempt, *zip(*chosen, strict=True)):
            outcomes.append(outcome)
            if outcome.state == "survived":
                print(f"{outcome.file}:{outcome.mutant.line}: {outcome.mutant.what}: survived")
                print(outcome.mutant.diff(texts[outcome.file], outcome.file), end="")
                print(_shown_by(root, outcome), flush=True)
    count = {state: sum(o.state == state for o in outcomes) for state in STATES}
    dead = count["killed"] + count["timed out"]
    judged = dead + count["survived"]
    score = 100 * dead / judged if judged else 100.0
    print(", ".join(f"{number} {state}" for state, number in count.items() if number))
    print(f"score {score:.0f} %: of {judged} mutants that load, the tests see {dead}")
    listing = [outcome.as_dict(texts[outcome.file]) for outcome in outcomes]
    if options.html:
        options.html.write_text(page(score, count, listing), "utf-8")
    if options.json:
        result = {"score": score, **count, "mutants": listing}
        options.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return SURVIVED if score < options.fail_under else 0


STATES = ("killed", "survived", "rejected", "timed out")


def _sources(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        yield from find_sources(path.absolute()) if path.is_dir() else [path.absolute()]


def _choose(
    root: Path,
    sources: Iterable[Path],
    lines: dict[str, set[int]],
    options: argparse.Namespace,
) -> list[tuple[str, Mutant]]:
    """Return the mutants to try, each with its file: those on lines that the tests reach."""
    compiler = find_compiler(options.cc)
    every: list[tuple[str, Mutant]] = []
    for source in sources:
        file = str(source.relative_to(root))
        found = mutants(tokens(source, compiler), source.read_bytes())
        reached = lines.get(file)
        every += [
            (file, m)
            for m in found
            if reached is None or m.line in reached or m.what == "map type swapped"
        ]
    if not every:
        raise ValueError("there is nothing to break: no line of these sources runs in the tests")
    if options.limit and len(every) > options.limit:
        picked = sorted(Random(options.seed).sample(range(len(every)), options.limit))  # noqa: S311
        print(f"{options.limit} of {len(every)} mutants, by seed {options.seed}")
        every = [every[index] for index in picked]
    return every


def _reached(root: Path, tests: Sequence[str]) -> dict[str, set[int]]:
    """Run the tests as they are, and return the lines of C that they reach by file.

    Raises `ValueError` when a test fails.
    """
    with tempfile.TemporaryDirectory(prefix="mutate-") as place:
        report = Path(place) / "lines.lcov"
        done = _pytest(root, place, "--bpf-cov", f"--bpf-cov-report=lcov:{report}", *tests)
        if done.returncode:
            raise ValueError(
                "the tests fail as they are, so they cannot tell what a mistake does:\n"
                + done.stdout[-2000:]
                + done.stderr[-2000:]
            )
        text = report.read_text("utf-8") if report.exists() else ""
    lines: dict[str, set[int]] = {}
    for part in text.split("end_of_record"):
        file = re.search(r"^SF:(.*)$", part, re.MULTILINE)
        if file:
            path = Path(file[1])
            name = str(path.relative_to(root) if path.is_relative_to(root) else path)
            counts = re.findall(r"^DA:(\d+),(\d+)", part, re.MULTILINE)
            lines[name] = {int(line) for line, count in counts if int(count)}
    return lines


def _start(
    root: Path, tests: Sequence[str], source: Path, ends: ExitStack, _number: int
) -> WarmPytest:
    """Return a process that runs sessions, in whose copy of the folder the tests pass.

    A first session there tells it what tests import; a second one has that before it. Raises
    `ValueError` when the tests fail.
    """
    for lazy in (False, True):
        warm = ends.enter_context(closing(WarmPytest(source, lazy=lazy)))
        for _ in range(1 if lazy else 2):
            done = warm.run(_copy(root, warm), (*_own(warm.folder), *tests), LONG)
            if done.status:
                break
        else:
            return warm
    raise ValueError(
        "the tests pass where they are, but not in a copy of this folder, so mistakes cannot be "
        f"tried there:\n{done.output[-2000:]}"
    )


@contextmanager
def _beginnings() -> Iterator[None]:
    """Let this process parse once what sources begin with, too."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as place:
        STORES.append(Cache(Path(place)))
        try:
            yield
        finally:
            STORES.pop()


def _copy(root: Path, warm: WarmPytest) -> Path:
    """Copy the folder to where a process runs its sessions."""
    shutil.rmtree(warm.folder, ignore_errors=True)
    shutil.copytree(root, warm.folder / root.name, ignore=LEFT_OUT, symlinks=True)
    return warm.folder / root.name


def _try(
    root: Path,
    tests: Sequence[str],
    sessions: SimpleQueue[WarmPytest],
    file: str,
    mutant: Mutant,
) -> Outcome:
    """Make a mutant in a copy of the folder, and run the tests there."""
    with borrowed(sessions) as warm:
        copy = _copy(root, warm)
        source = copy / file
        source.write_text(mutant.apply(source.read_text("utf-8")), "utf-8")
        state, test, _ = first_failure(warm, copy, (*_own(warm.folder), *tests))
    return Outcome(file, mutant, state, test)


@contextmanager
def borrowed(sessions: SimpleQueue[WarmPytest]) -> Iterator[WarmPytest]:
    """Take a process that runs sessions, and give it back."""
    warm = sessions.get()
    try:
        yield warm
    finally:
        sessions.put(warm)


def first_failure(
    warm: WarmPytest, folder: Path, arguments: Sequence[str], seconds: float = SECONDS
) -> tuple[str, str, str]:
    """Run tests until one fails; return what became of the mutant, the test, and its message.

    Raises `ValueError` when pytest itself fails.
    """
    report = folder.with_name("report.xml")
    done = warm.run(folder, (*arguments, "-x", f"--junitxml={report}"), seconds)
    if done.status is None:
        return "timed out", "", ""
    if not done.status:
        return "survived", "", ""
    for case in ET.parse(report).iter("testcase") if report.exists() else ():  # noqa: S314
        for failure in (*case.iter("failure"), *case.iter("error")):
            message = failure.get("message", "")
            state = "rejected" if REJECTED.match(message) else "killed"
            return state, case.get("name", ""), message
    raise ValueError(f"pytest itself failed:\n{done.output[-2000:]}")


def _shown_by(root: Path, outcome: Outcome) -> str:
    """Return the input for which a survivor differs from the program, or that none was found."""
    source = root / outcome.file
    broken = source.with_name(f"mutant-{os.getpid()}-{source.name}")
    broken.write_text(outcome.mutant.apply(source.read_text("utf-8")), "utf-8")
    compared = 0
    try:
        with _cpus_of(outcome.mutant), Loader(root) as bpf:
            before, after = bpf.load(source), bpf.load(broken)
            for name, program in before.programs.items():
                if program.kind.test_run in {"packet", "arguments", "context"}:
                    check_equivalence(before, after, program=name, count=INPUTS)
                    compared += 1
    except DifferenceError as error:
        return f"a test would see it by this: {error}\n"
    except BpfError as error:
        return f"not compared with the program: {error}\n"
    finally:
        broken.unlink()
    if not compared:
        return "not compared with the program: none of it can be test-run\n"
    return f"the same as the program for {INPUTS} inputs: perhaps no test can see it\n"


@contextmanager
def _cpus_of(mutant: Mutant) -> Iterator[None]:
    """Keep this thread on one CPU for mistakes that need no second one to be seen."""
    cpus = os.sched_getaffinity(0)
    if mutant.what not in RACES:
        os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def _pytest(folder: Path, place: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "pytest", *_own(place), *arguments),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def _own(place: str | Path) -> tuple[str, ...]:
    """Return the options of every session."""
    return ("-q", "-p", "no:cacheprovider", f"--basetemp={Path(place, 'pytest')}")


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf mutate",
        description="Break BPF programs on purpose, one small mistake at a time, and run the "
        "tests: a mistake that no test sees is shown.",
        epilog="What follows -- is for pytest: files of tests, -k, options.",
    )
    add = result.add_argument
    add("sources", nargs="+", type=Path, help="BPF sources, or folders of them")
    add("--limit", type=int, default=0, metavar="N", help="try N of the mutants, drawn by the seed")
    add("--seed", type=int, default=0, help="draws them (default: 0)")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time (default: CPUs)")
    add("--fail-under", type=float, default=0.0, metavar="PERCENT", help="fail for a lower score")
    add("--json", type=Path, metavar="FILE", help="write what became of each mutant")
    add("--html", type=Path, metavar="FILE", help="write a page about the mutants")
    add("--cc", help="the compiler that tells the tokens")
    return result
