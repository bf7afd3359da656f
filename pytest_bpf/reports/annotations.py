"""What code hosts show beside the lines of a change: GitHub's commands, GitLab's code quality."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.budgets.results import Results

Level = Literal["error", "warning"]

GITHUB_MOST = 50
"""GitHub shows 10 annotations of each level a step, and 50 a job; more would be noise."""


@dataclass(frozen=True)
class Annotation:
    """One remark; ``line`` is 0 where it is about a file as a whole, ``file`` may be empty."""

    level: Level
    file: str
    line: int
    title: str
    message: str


def remarks(results: Results, root: Path | None = None) -> list[Annotation]:
    """Return those of failed tests, and of budgets that warn; each once for all kernels.

    Files below ``root`` (the checkout; else the current folder) are named from there.
    """
    base = root or Path(
        os.environ.get("GITHUB_WORKSPACE") or os.environ.get("CI_PROJECT_DIR") or "."
    )
    return list(dict.fromkeys(_all(results, base.absolute())))


def _all(results: Results, base: Path) -> Iterator[Annotation]:
    for outcome in results.tests:
        if outcome.result not in {"failed", "error"}:
            continue
        hint = next((s[6:] for s in outcome.state.splitlines() if s.startswith("hint: ")), "")
        if not outcome.places:
            yield Annotation("error", "", 0, outcome.test, _with(outcome.message, hint))
        for place in outcome.places:
            file = _relative(place.file, base)
            yield Annotation("error", file, place.line, outcome.test, _with(place.message, hint))
    for finding in results.findings:
        if finding.get("verdict") == "warning":
            source = results.sources.get((str(finding["test"]), str(finding["subject"])), "")
            file = _relative(source, base) if source else ""
            yield Annotation("warning", file, 0, str(finding["test"]), str(finding["headline"]))


def github(results: Results) -> list[str]:
    """Return the workflow commands, one a line: GitHub finds them in a step's output."""
    return [github_command(one) for one in remarks(results)[:GITHUB_MOST]]


def github_command(one: Annotation) -> str:
    """Return the workflow command that shows a remark beside its line."""
    place = {"file": one.file, "line": str(one.line) if one.line else "", "title": one.title}
    properties = ",".join(f"{k}={_property(v)}" for k, v in place.items() if v)
    return f"::{one.level} {properties}::{_data(one.message)}"


def gitlab(results: Results) -> list[dict[str, Any]]:
    """Return a code quality report: GitLab shows its entries in a merge request's changes."""
    return [
        {
            "description": f"{one.title}: {one.message}",
            "check_name": "pytest-bpf",
            "fingerprint": _fingerprint(one),
            "severity": "major" if one.level == "error" else "minor",
            "location": {"path": one.file or one.title.partition("::")[0],
                         "lines": {"begin": max(1, one.line)}},
        }
        for one in remarks(results)
    ]  # fmt: skip


def _fingerprint(one: Annotation) -> str:
    text = f"{one.file}\0{one.title}\0{one.message}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _with(message: str, hint: str) -> str:
    return f"{message}\n{hint}" if hint and hint not in message else message


def _relative(file: str, base: Path) -> str:
    path = Path(os.path.normpath(Path.cwd() / file))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else file


def _data(text: str) -> str:
    """Escape a message as GitHub's runner reads it.

    >>> _data("50 % of it")
    '50 %25 of it'
    """
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
