"""``pytest-bpf init``: tests, configuration and a workflow for a repository with BPF sources."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from pytest_bpf.commands.build_settings import BuildSettings, load_source, open_source
from pytest_bpf.commands.load_arguments import LoadArguments, find_load_arguments
from pytest_bpf.commands.smoke import (
    SmokeObject,
    SmokeTest,
    conftest,
    smoke_object,
    smoke_tests,
    test_file,
)
from pytest_bpf.commands.sources import find_sources
from pytest_bpf.errors import BpfError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_bpf.objects.loading.open_object import OpenObject

TESTS = Path("tests", "bpf")
"""Where the tests are written, from the root."""

BASELINE = Path("bpf-baselines", "main.json")

IGNORED = (".bpf-cache/", ".pytest_cache/", "__pycache__/")

TIMEOUT = 600
"""Seconds that the tests may take when they are tried."""


@dataclass
class InitPlan:
    """What is to be written, by path from the root; lines to say; options that pytest needs."""

    files: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SmokeRun:
    """What became of the tests of one file: the message of each that failed or was skipped."""

    failed: Mapping[str, str]
    skipped: Mapping[str, str]


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf init", description="Write tests, configuration and a workflow."
    )
    result.add_argument("folder", nargs="?", default=".", type=Path, help="the repository")
    result.add_argument("--dry-run", action="store_true", help="show, and write nothing")
    return result


def main(arguments: Sequence[str]) -> int:
    """Write tests for the BPF sources of a folder; return the exit status."""
    options = parser().parse_args(arguments)
    root = options.folder.absolute()
    if not root.is_dir():
        print(f"pytest-bpf init: {root} is no folder", file=sys.stderr)
        return 2
    sources = find_sources(root)
    if not sources:
        print(
            f"pytest-bpf init: no C file in {root} has a BPF program (SEC(...) and bpf_helpers.h); "
            "`pytest-bpf new xdp` writes one",
            file=sys.stderr,
        )
        return 2
    try:
        with _one_owner(root):
            return _init(root, sources, dry_run=options.dry_run)
    except OSError as error:
        print(f"pytest-bpf init: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


def _init(root: Path, sources: Sequence[Path], *, dry_run: bool) -> int:
    plan = InitPlan()
    try:
        objects, settings = _open_all(root, sources, plan)
        if objects:
            _plan_tests(root, objects, settings, plan)
    except BpfError as error:
        print(f"pytest-bpf init: {error}", file=sys.stderr)
        return 1
    _plan_configuration(root, settings, plan)
    _plan_workflow(root, plan)
    for path, text in plan.files.items():
        if dry_run:
            print(f"--- {path}\n{text}")
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if not dry_run:
        _ignore(root)
    for note in plan.notes:
        print(f"note: {note}")
    if not objects:
        return 1
    return 0 if dry_run else _first_run(root, plan.options)


@contextmanager
def _one_owner(root: Path) -> Iterator[None]:
    """Let what root makes meanwhile belong to whom the repository belongs: init runs under sudo."""
    owner = root.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    before = _tree(root)
    try:
        yield
    finally:
        for path in _tree(root) - before:
            if os.lstat(path).st_uid == 0:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _tree(root: Path) -> set[str]:
    """Return the files and folders of a repository, its history left out."""
    paths: set[str] = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != ".git"]
        paths |= {f"{folder}/{name}" for name in (*folders, *names)}
    return paths


def _open_all(
    root: Path, sources: Sequence[Path], plan: InitPlan
) -> tuple[list[SmokeObject], BuildSettings]:
    settings = BuildSettings()
    objects: list[SmokeObject] = []
    for source in sources:
        name = source.relative_to(root)
        try:
            obj, settings = open_source(source, root, settings)
            arguments = _load_arguments(obj, source, root, settings)
        except UnavailableError:
            raise
        except BpfError as error:
            plan.notes.append(f"{name} has no test: {_short(str(error), root)}")
            continue
        smoke = _unique(smoke_object(name, obj, arguments), objects)
        objects.append(smoke)
        print(f"{name}: {', '.join(program.name for program in smoke.programs)}", flush=True)
        for program, reason in arguments.skip.items():
            why = _short(reason, root).removeprefix(f"{name}: ")
            plan.notes.append(f"{name}: {program} is left out (skip=): {why}")
    return objects, settings


def _load_arguments(
    obj: OpenObject, source: Path, root: Path, settings: BuildSettings
) -> LoadArguments:
    def load(arguments: LoadArguments) -> None:
        load_source(source, root, settings, arguments)

    return find_load_arguments(obj, load)


def _short(message: str, root: Path) -> str:
    """Return the first line of an error's message, without the folder and the error's class."""
    line = (message.splitlines() or [""])[0].removeprefix('failed on setup with "')
    line = re.sub(r"^pytest_bpf\.errors\.\w+: ", "", line).removesuffix('"')
    return line.replace(f"{root}/", "")


def _unique(obj: SmokeObject, others: Sequence[SmokeObject]) -> SmokeObject:
    """Return the object with a fixture that no other has: two folders may have one file name."""
    names = {other.fixture for other in others}
    if obj.fixture not in names:
        return obj
    folder = re.sub(r"\W", "_", obj.source.parent.as_posix(), flags=re.ASCII).lower().strip("_")
    longer = f"{folder}_{obj.fixture}" if folder.isidentifier() else f"source_{obj.fixture}"
    numbered = (f"{longer}_{number}" for number in count(2))
    return replace(obj, fixture=next(n for n in chain([longer], numbered) if n not in names))


def _plan_tests(
    root: Path, objects: Sequence[SmokeObject], settings: BuildSettings, plan: InitPlan
) -> None:
    """InitPlan the tests that pass here; what was tried and did not pass becomes a note."""
    candidates = [(obj, smoke_tests(obj)) for obj in objects]
    skips: dict[str, set[Path]] = defaultdict(set)
    for (obj, tests), trial in zip(candidates, _try(root, candidates, settings), strict=True):
        kept = [test for test in tests if test.name not in trial.failed]
        for name, message in trial.failed.items():
            plan.notes.append(f"{obj.source}: no {name}, because it fails: {_short(message, root)}")
        for message in trial.skipped.values():
            skips[_reason(_short(message, root))].add(obj.source)
        if kept:
            _add(root, plan, TESTS / obj.test_file, test_file(obj, kept))
    for reason, sources in skips.items():
        names = ", ".join(map(str, sorted(sources)))
        plan.notes.append(f"tests of {names} are skipped on this machine: {reason}")
    up = len(TESTS.parts)
    _add(root, plan, TESTS / "conftest.py", conftest(objects, f"Path(__file__).parents[{up}]"))


def _reason(message: str) -> str:
    """Return why a test was skipped, without the program that it was skipped for."""
    return message.partition(" here: ")[2] or message


def _add(root: Path, plan: InitPlan, path: Path, text: str) -> None:
    if (root / path).exists():
        plan.notes.append(f"{path} is there already, and stays as it is")
    else:
        plan.files[path] = text


def _try(
    root: Path,
    candidates: Sequence[tuple[SmokeObject, Sequence[SmokeTest]]],
    settings: BuildSettings,
) -> list[SmokeRun]:
    """Run the tests in a folder of their own, on the repository's sources."""
    with tempfile.TemporaryDirectory(prefix="pytest-bpf-init-") as name:
        folder = Path(name)
        lines = _ini_lines(settings.ini(root))
        (folder / "pytest.ini").write_text(f"[pytest]\n{lines}", encoding="utf-8")
        text = conftest([obj for obj, _ in candidates], f"Path({str(root)!r})")
        (folder / "conftest.py").write_text(text, encoding="utf-8")
        for obj, tests in candidates:
            (folder / obj.test_file).write_text(test_file(obj, tests), encoding="utf-8")
        report = folder / "report.xml"
        command = (*_pytest(), "-q", "-p", "no:cacheprovider", f"--junitxml={report}")
        try:
            run = subprocess.run(
                command, cwd=folder, capture_output=True, check=False, timeout=TIMEOUT,
                stdin=subprocess.DEVNULL, text=True, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            message = f"the tests of {root} did not end in {TIMEOUT} s"
            raise BpfError(message) from None
        if not report.exists():
            output = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
            message = (
                f"pytest does not run here: {(output or [f'exit status {run.returncode}'])[-1]}"
            )
            raise BpfError(message)
        return [_trial(report, obj) for obj, _ in candidates]


def _pytest() -> tuple[str, ...]:
    return (sys.executable, "-m", "pytest")


def _trial(report: Path, obj: SmokeObject) -> SmokeRun:
    failed, skipped = {}, {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 (pytest has just written it)
        if case.get("classname", "").rpartition(".")[2] != obj.test_file.removesuffix(".py"):
            continue
        for outcome in case:
            message = (outcome.get("message") or "").splitlines()
            if outcome.tag in ("failure", "error"):
                failed[case.get("name", "")] = message[0] if message else outcome.tag
            elif outcome.tag == "skipped":
                skipped[case.get("name", "")] = message[0] if message else ""
    return SmokeRun(failed, skipped)


def _ini_lines(settings: Mapping[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _plan_configuration(root: Path, settings: BuildSettings, plan: InitPlan) -> None:
    lines = {**settings.ini(), "bpf_baseline": "main"}
    if place := _configured(root):
        text = _text(root / place)
        missing = {name: value for name, value in lines.items() if name not in text}
        text = "; ".join(f"{name} = {value}" for name, value in missing.items())
        if not text:
            return
        plan.notes.append(f"add to pytest's section of {place}: {text}")
        plan.options += [f"--override-ini={name}={value}" for name, value in missing.items()]
        return
    plan.files[Path("pytest.ini")] = f"[pytest]\ntestpaths = tests\n{_ini_lines(lines)}"


def _configured(root: Path) -> str:
    """Return the file in which the repository configures pytest already; "" when none does."""
    for name in ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml"):
        if (root / name).exists():
            return name
    project = root / "pyproject.toml"
    if project.exists() and "[tool.pytest" in _text(project):
        return project.name
    for name, section in (("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")):
        if (root / name).exists() and f"\n[{section}]" in f"\n{_text(root / name)}":
            return name
    return ""


def _text(path: Path) -> str:
    """Return what a file of the repository has; bytes that are no UTF-8 stay as they are."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def _plan_workflow(root: Path, plan: InitPlan) -> None:
    text = files("pytest_bpf.commands").joinpath("templates").joinpath("bpf.yml").read_text("utf-8")
    if (root / ".gitlab-ci.yml").exists():
        plan.notes.append("docs/how-to/ci.md has the lines for .gitlab-ci.yml")
    else:
        _add(root, plan, Path(".github", "workflows", "bpf.yml"), text)


def _ignore(root: Path) -> None:
    path = root / ".gitignore"
    text = _text(path) if path.exists() else ""
    lines = [line for line in IGNORED if line not in text.splitlines()]
    if lines:
        start = "" if not text or text.endswith("\n") else "\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(start + "".join(f"{line}\n" for line in lines))
        print(f"added to .gitignore: {' '.join(lines)}")


def _first_run(root: Path, options: Sequence[str]) -> int:
    """Run the tests that were written, and save their baseline; return the exit status."""
    saved = (root / BASELINE).exists()
    save = [] if saved else ["--bpf-save-baseline"]
    words = ("-q", "--disable-warnings", str(TESTS), *options, *save)
    print(f"running pytest {' '.join(words)}", flush=True)
    command = (*_pytest(), *words)
    status = subprocess.run(command, cwd=root, check=False, env=_environment()).returncode
    if status == 0:
        print("Commit what was written. Next: pytest-bpf new xdp, and the tutorial.")
    return status


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
