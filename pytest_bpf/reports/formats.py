"""The formats of ``--bpf-report``, each a function that writes one file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.budgets import results
from pytest_bpf.reports.bencher import bencher
from pytest_bpf.reports.benchmark import benchmark
from pytest_bpf.reports.markdown import markdown
from pytest_bpf.reports.veristat import veristat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_bpf.budgets.results import Results


def _write_json(path: Path, content: Any) -> None:
    results.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_markdown(found: Results, path: Path) -> None:
    """Write Markdown; a GitHub step's summary is added to, as the other steps' parts are in it."""
    text = "\n".join([*markdown(found), ""])
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and Path(summary) == path and path.exists():
        text = path.read_text(encoding="utf-8") + text
    results.write_text(path, text)


FORMATS: Mapping[str, Callable[[Results, Path], None]] = {
    "json": lambda found, path: results.write(path, found),
    "markdown": _write_markdown,
    "benchmark": lambda found, path: _write_json(path, benchmark(found, better="lower")),
    "benchmark-bigger": lambda found, path: _write_json(path, benchmark(found, better="higher")),
    "bencher": lambda found, path: _write_json(path, bencher(found)),
    "veristat": lambda found, path: results.write_text(path, veristat(found)),
}
