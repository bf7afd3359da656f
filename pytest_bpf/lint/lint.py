"""Run the rules over an open object, and leave out what the source tells them to ignore."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnknownNameError, near_matches
from pytest_bpf.lint.findings import LintOptions
from pytest_bpf.lint.rules import RULES
from pytest_bpf.lint.subject import LintSubject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.lint.findings import LintFinding
    from pytest_bpf.lint.rules import Rule
    from pytest_bpf.objects.loading.open_object import OpenObject

IGNORE = re.compile(r"bpf-lint:\s*ignore(?:\[([\w\s,-]*)\])?")


def lint(obj: OpenObject, path: str = "", settings: LintOptions | None = None) -> list[LintFinding]:
    """Return what the rules find in an object, sorted by file and line.

    ``path`` stands for files that are not known. A line with ``/* bpf-lint: ignore[rule] */`` has
    no findings of that rule, one with ``/* bpf-lint: ignore */`` none at all. Raises
    `UnknownNameError` for a rule that does not exist.
    """
    settings = settings or LintOptions()
    subject = LintSubject.of(obj, path, settings)
    findings: dict[LintFinding, list[str]] = {}
    for rule in selected(settings):
        for finding in rule.check(subject):
            programs = findings.setdefault(replace(finding, program=""), [])
            programs += [finding.program] * (finding.program not in programs)
    merged = [
        replace(finding, file=os.path.normpath(finding.file), program=", ".join(names))
        for finding, names in findings.items()
    ]
    return sorted(leave_out_ignored(merged))


def selected(settings: LintOptions) -> list[Rule]:
    """Return the rules to run; `UnknownNameError` with near matches for others."""
    for name in (*settings.select, *settings.ignore):
        if name not in RULES and name != "all":
            raise UnknownNameError(f"there is no rule {name!r}{near_matches(name, RULES)}")
    names = [name for name, rule in RULES.items() if rule.default]
    if settings.select:
        names = [name for name in RULES if name in settings.select or "all" in settings.select]
    return [RULES[name] for name in names if name not in settings.ignore]


def leave_out_ignored(findings: Iterable[LintFinding]) -> list[LintFinding]:
    """Return the findings whose line in the source does not say to ignore them."""
    texts: dict[str, list[str]] = {}
    kept = []
    for finding in findings:
        if finding.file not in texts:
            texts[finding.file] = _lines(finding.file)
        lines = texts[finding.file]
        line = lines[finding.line - 1] if 0 < finding.line <= len(lines) else ""
        match = IGNORE.search(line)
        if match and (match[1] is None or finding.rule in re.split(r"[\s,]+", match[1])):
            continue
        kept.append(finding)
    return kept


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
