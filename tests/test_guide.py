"""The pages about the guide say what its suites say, and no broken program goes unseen."""

from __future__ import annotations

import importlib
import re
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest

import bpf_examples
from bpf_examples import lines
from bpf_examples.mutate import OWN, SUITES, Mutant, markdown, mutants, outcome
from pytest_bpf.commands.mutate import borrowed, first_failure
from pytest_bpf.commands.warm_pytest import WarmPytest
from pytest_bpf.lint import RULES
from pytest_bpf.plugin.budgets.claim_marker import parse_claim
from pytest_bpf.reports.claim_table import claim_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import TypeAlias

    from pytest_bpf.budgets.claims import Claim

    Sessions: TypeAlias = SimpleQueue[WarmPytest]

DOCS = Path(__file__).parent.parent / "docs"
SCOREBOARD, CHECKLIST, MUTANTS, LINES = (
    DOCS / f"guide-{name}.md" for name in ("scoreboard", "checklist", "mutants", "lines")
)
FOLDERS = sorted(path.parent for path in SUITES.glob("*/test_*.py"))
ROWS = set(range(1, 17))
"""Of the guide; 17 is the checklist, a page of its own."""

each_suite = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def module_of(folder: Path) -> ModuleType:
    return importlib.import_module(f"{bpf_examples.__name__}.{folder.name}.test_{folder.name}")


def claims() -> Iterator[tuple[str, Claim]]:
    """Yield what the suites claim, each with the suite's name."""
    for folder in FOLDERS:
        for test in vars(module_of(folder)).values():
            for mark in getattr(test, "pytestmark", ()):
                if mark.name == "bpf_claim" and getattr(test, "__name__", "").startswith("test_"):
                    yield folder.name, parse_claim(mark)


def table(page: Path) -> list[list[str]]:
    """Return the cells of a page's only table, without its head."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    cells = (re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |")) for line in lines)
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in cells][2:]


def test_every_row_of_the_guide_is_claimed() -> None:
    assert {claim.row for _, claim in claims()} - {None} == ROWS


def test_scoreboard_is_current() -> None:
    lines = claim_lines(claim for _, claim in claims())
    shown = {(row, says): verdict for row, says, _, verdict, _ in table(SCOREBOARD)}
    expected = {(claim.row, claim.says): claim.expected for _, claim in claims()}
    assert list(shown) == [(line.row, line.says) for line in lines]
    for (row, says), verdict in expected.items():
        found = shown["" if row is None else str(row), says]
        assert found == verdict or (verdict is None and found != "not measured"), says


def test_checklist_says_what_the_suites_say() -> None:
    verdicts = {(suite, claim.row, claim.says): claim.expected for suite, claim in claims()}
    items = table(CHECKLIST)
    assert len(items) >= 13
    for item, link, row, says, verdict, rule in items:
        assert not rule or rule.split("`")[1] in RULES, item
        suite = re.findall(r"\]\(\.\./bpf_examples/(\w+)/README\.md\)", link)
        assert suite, item
        assert (suite[0], int(row), says) in verdicts, f"{item}: nobody claims {says!r}"
        expected = verdicts[suite[0], int(row), says] or "depends on the machine"
        assert verdict == expected, item


@each_suite
def test_readme_says_what_there_is(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    of_the_guide = any(name == folder.name and claim.row for name, claim in claims())
    claimed = ("The claim.", "What was wrong with it.", "Measured") if of_the_guide else ()
    for part in ("The idea.", *claimed, "What the tests prove", "Use"):
        assert f"**{part}" in text, part
    for source in folder.glob("*.bpf.c"):
        assert f"`{source.name}`" in text, f"{source.name} is not in the table of files"
    assert len(text.splitlines()) <= 65, "more than a screen"


@each_suite
def test_every_program_has_a_mutant(folder: Path) -> None:
    own = mutants([folder.name])
    assert {mutant.file for mutant in own} == {path.name for path in folder.glob("*.bpf.c")}


@pytest.mark.parametrize("mutant", mutants(), ids=lambda m: f"{m.suite}-{m.file}-{m.why}")
def test_mutant_can_be_made(mutant: Mutant, tmp_path: Path) -> None:
    source = tmp_path / mutant.file
    source.write_text((SUITES / mutant.suite / mutant.file).read_text())
    before = source.read_text()
    mutant.apply(tmp_path)
    assert source.read_text() != before


def test_mutant_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.bpf.c").write_text("a a")
    with pytest.raises(ValueError, match="'a' is there 2 times"):
        Mutant("x", "x.bpf.c", "a", "b", "").apply(tmp_path)


def test_page_of_mutants_is_current() -> None:
    rows = table(MUTANTS)
    assert [row[:2] for row in rows] == [[f"{m.suite}/{m.file}", m.why] for m in mutants()]
    for program, _, killed, _ in rows:
        suite, test = program.partition("/")[0], re.fullmatch(r"`(test_\w+)(\[.*\])?`", killed)
        assert test, f"{program}: {killed}"
        assert hasattr(module_of(SUITES / suite), test[1]), f"{suite} has no {test[1]}"


def test_page_of_lines_is_current() -> None:
    rows = table(LINES)
    assert [row[0] for row in rows] == [f"{p.parent.name}/{p.name}" for p in lines.sources()]
    for name, count, ran, _, missing, left_out in rows:
        program = lines.Program(name, int(count), (), int(ran))
        assert left_out == "; ".join(lines.reasons(SUITES / name)), name
        assert int(ran) + (missing.count(",") + 1 if missing else 0) == int(count), name
        assert not missing or not program.is_advice, f"{name}: lines {missing} did not run"


@pytest.mark.bpf_requires(program_type="sched_cls", cpus=2)
def test_lines_of_a_suite_are_those_of_the_page() -> None:
    shown = {row[0]: row for row in table(LINES)}
    table_ = lines.programs(["per_cpu"], [()])
    assert len(table_) == 3
    for program in table_:
        assert shown[program.name][1:3] == [str(program.statements), str(program.ran)]


def test_a_line_that_did_not_run_is_shown() -> None:
    page = lines.markdown([lines.Program("lru/after.bpf.c", 10, (3, 4), 7, ("it makes room",))])
    assert page[-1] == "| lru/after.bpf.c | 10 | 8 | 1 | 3, 4 | it makes room |"
    assert "Programs that follow the guide: 8 of 10 lines ran; others: 0 of 0 lines." in page


KILLED = [("per_cpu", "after.bpf.c"), ("map_types", "migration.bpf.c")]
"""A quick choice; all of them are the command's work."""


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    """What the tests of a mutant run in: one session at a time."""
    queue: Sessions = SimpleQueue()
    with closing(WarmPytest(SUITES / "per_cpu" / "after.bpf.c")) as warm:
        queue.put(warm)
        yield queue


@pytest.mark.bpf_requires(program_type="sched_cls", cpus=2)
@pytest.mark.parametrize(("suite", "file"), KILLED)
def test_mutants_are_killed(sessions: Sessions, suite: str, file: str) -> None:
    for mutant in (mutant for mutant in mutants([suite]) if mutant.file == file):
        found = outcome(sessions, mutant)
        assert found.killed_by.startswith("test_"), found
        assert found.where == "natively"


@pytest.mark.bpf_requires(program_type="syscall")
def test_suite_as_it_is_passes_where_it_is_copied(sessions: Sessions, tmp_path: Path) -> None:
    folder = tmp_path / "arithmetic"
    folder.mkdir()
    for path in (SUITES / "arithmetic").glob("*.*"):
        (folder / path.name).write_text(path.read_text())
    own = (*OWN, f"--rootdir={folder}", f"--basetemp={tmp_path / 'pytest'}", str(folder))
    with borrowed(sessions) as warm:
        assert first_failure(warm, folder, own) == ("survived", "", "")


@pytest.mark.bpf_requires(program_type="sched_cls")
def test_program_that_does_not_compile_is_no_killed_mutant(sessions: Sessions) -> None:
    wrong = Mutant("per_cpu", "after.bpf.c", "stats->packets++;", "nonsense;", "x")
    found = outcome(sessions, wrong)
    assert not found.killed_by
    assert found.wrong.startswith("does not build: pytest_bpf.errors.CompileError")
    assert "does not build" in markdown([found])[-1]
