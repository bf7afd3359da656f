"""What the lint rules found, in the formats that people, editors and CI read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_bpf.lint import RULES
from pytest_bpf.reports.annotations import Annotation, github_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.lint import LintFinding

RULES_PAGE = "https://github.com/pytest-bpf/pytest-bpf/blob/main/docs/reference/lint-rules.md"


def text(findings: Sequence[LintFinding]) -> str:
    """Return a line for each finding, and how many there are."""
    count = len(findings)
    total = f"{count} finding{'s' * (count != 1)}" if findings else "nothing found"
    return "\n".join([*map(str, findings), total])


def as_json(findings: Sequence[LintFinding]) -> str:
    """Return a JSON list of objects with file, line, rule, message, program."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def github(findings: Sequence[LintFinding]) -> str:
    """Return GitHub's workflow commands: each finding is shown beside its line."""
    remarks = [Annotation("warning", f.file, f.line, f.rule, f.message) for f in findings]
    return "\n".join(map(github_command, remarks))


def sarif(findings: Sequence[LintFinding]) -> str:
    """Return SARIF 2.1.0, which code scanning of GitHub and editors read."""
    rules = [
        {
            "id": rule.name,
            "shortDescription": {"text": rule.finds},
            "helpUri": f"{RULES_PAGE}#{rule.name}",
        }
        for rule in RULES.values()
    ]
    driver = {"name": "pytest-bpf lint", "informationUri": RULES_PAGE, "rules": rules}
    run = {"tool": {"driver": driver}, "results": [_result(finding) for finding in findings]}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _result(finding: LintFinding) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": finding.file},
        "region": {"startLine": max(finding.line, 1)},
    }
    return {
        "ruleId": finding.rule,
        "level": "warning",
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}],
    }


FORMATS: dict[str, Callable[[Sequence[LintFinding]], str]] = {
    "text": text,
    "json": as_json,
    "github": github,
    "sarif": sarif,
}
"""By name, what writes a list of findings."""
