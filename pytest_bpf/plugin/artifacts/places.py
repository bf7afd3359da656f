"""The lines of C that a failure is about: refused by the verifier, by the compiler, by a budget."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_bpf.errors import CompileError, VerifierError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_bpf.budgets.findings import Finding
    from pytest_bpf.loader import Loader

_ERROR = re.compile(r"^([^\s:][^:\n]*):(\d+):\d+: (?:fatal )?error: (.*)$", re.MULTILINE)

MOST = 10
"""Places that are told of one failure."""


def places_of(
    error: BaseException | None, findings: Iterable[Finding], loaders: Sequence[Loader]
) -> list[tuple[str, int, str]]:
    """Return file, line and message of each."""
    places = [*_of_error(error), *_of_findings(findings, loaders)]
    return list(dict.fromkeys(places))[:MOST]


def _of_error(error: BaseException | None) -> Iterator[tuple[str, int, str]]:
    if isinstance(error, VerifierError):
        file, _, line = error.location.rpartition(":")
        if file and line.isdecimal():
            yield file, int(line), f"the verifier rejects {error.program}: {error.reason}"
    elif isinstance(error, CompileError):
        for file, line, message in _ERROR.findall(getattr(error, "output", "")):
            yield file, int(line), message


def _of_findings(
    findings: Iterable[Finding], loaders: Sequence[Loader]
) -> Iterator[tuple[str, int, str]]:
    from pytest_bpf.objects.elf import source_lines

    programs = {
        f"prog {name}": (obj, program.section)
        for loader in loaders
        for obj in loader.objects
        for name, program in obj.programs.items()
    }
    for finding in findings:
        if finding.verdict != "fail" or finding.subject not in programs:
            continue
        obj, section = programs[finding.subject]
        name = finding.subject.partition(" ")[2]
        for line in source_lines(obj.content) if obj.content else ():
            if line.section == section and re.search(rf"\b{re.escape(name)}\b", line.text):
                yield line.file, line.line, finding.headline
                break
