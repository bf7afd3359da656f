"""``pytest-bpf lint``: the guide's checklist over BPF sources and objects."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.budgets.quantity import parse_quantity
from pytest_bpf.commands.build_settings import BuildSettings, open_source
from pytest_bpf.commands.sources import find_sources
from pytest_bpf.errors import BpfError
from pytest_bpf.lint import RULES, LintOptions, lint
from pytest_bpf.loader import Loader
from pytest_bpf.reports.lint import FORMATS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.lint import LintFinding

FOUND, FAILED = 1, 2
"""Exit statuses: there are findings; a file could not be read."""


def main(arguments: Sequence[str]) -> int:
    """Print what the rules find; return 0 for nothing, 1 for findings, 2 for a file that fails."""
    options = parser().parse_args(arguments)
    if options.rules:
        print("\n".join(f"{rule.name:18} {rule.finds}" for rule in RULES.values()))
        return 0
    try:
        major, _, minor = options.kernel.partition(".")
        kernel = (int(major), int(minor or 0))
        memory = int(parse_quantity(options.memory, "B"))
    except (ValueError, BpfError) as error:
        print(f"pytest-bpf lint: {error}", file=sys.stderr)
        return FAILED
    rules = tuple(options.select), tuple(options.ignore)
    settings = LintOptions(kernel, options.cpus, memory, *rules)
    findings: list[LintFinding] = []
    failures = 0
    build = BuildSettings(include_dirs=tuple(os.path.relpath(each) for each in options.include))
    for path in _paths(options.paths):
        try:
            if path.suffix == ".c":
                obj, build = open_source(path, Path.cwd(), build)
            else:
                obj = Loader().open(path)
            findings += [
                replace(each, file=_shown(each.file)) for each in lint(obj, str(path), settings)
            ]
        except BpfError as error:
            failures += 1
            print(f"{os.path.relpath(path)}: {error}", file=sys.stderr)
    if findings or options.format != "github":
        print(FORMATS[options.format](sorted(findings)))
    return FAILED if failures else FOUND if findings and not options.exit_zero else 0


def _shown(file: str) -> str:
    """Return a path from here, where it is below."""
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file


def _paths(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are meant: a folder stands for the BPF sources below it."""
    result: list[Path] = []
    for path in paths:
        result += find_sources(path.absolute()) if path.is_dir() else [path.absolute()]
    return result


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf lint",
        description="Find what the guide on eBPF performance advises against. Nothing is loaded.",
    )
    add = result.add_argument
    add("paths", nargs="*", type=Path, default=[Path()], help="sources, objects or folders")
    add("--select", action="append", default=[], metavar="RULE", help="run only these; 'all'")
    add("--ignore", action="append", default=[], metavar="RULE", help="leave these out")
    add("--kernel", default="6.1", help="the oldest kernel it has to run on (default: 6.1)")
    add("--cpus", type=int, default=64, help="CPUs of the target (default: 64)")
    add("--memory", default="64MiB", help="the most memory of one map (default: 64MiB)")
    add("--include", "-I", action="append", default=[], help="a folder with headers")
    add("--format", choices=FORMATS, default="text")
    add("--exit-zero", action="store_true", help="do not fail because of findings")
    add("--rules", action="store_true", help="list the rules")
    return result
