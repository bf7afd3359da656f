"""The reports of lines that are ours: in the terminal, and as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.plugin.coverage import coverage_py
from pytest_bpf.plugin.settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from pytest_bpf.coverage.values import FileLines


def report(
    config: pytest.Config,
    terminalreporter: pytest.TerminalReporter,
    files: Sequence[FileLines],
    notes: Sequence[str],
) -> None:
    """Write the reports that were asked for, and the notes."""
    from pytest_bpf.coverage.summary import summaries
    from pytest_bpf.reports import lines as formats

    summary = summaries(files)
    chosen = settings(config).cov_reports
    with_coverage_py = bool(config.getoption("cov_source", None))
    shown = [] if with_coverage_py and not chosen else formats.table(summary, config.rootpath)
    for kind, path in chosen:
        if path is not None:
            shown.append(_written(kind, path, formats.render(kind, summary, config.rootpath)))
    if with_coverage_py and files and not coverage_py.is_named(config):
        notes = [*notes, formats.NAME_THE_PLUGIN]
    if shown or notes:
        terminalreporter.write_sep("=", "bpf: lines")
        for text in (*shown, *notes):
            terminalreporter.write_line(text)


def _written(kind: str, path: Path, text: str) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        return f"ERROR: --bpf-cov-report={kind}:{path} cannot be written: {error.strerror}"
    return f"{kind} written to {path}"
