"""What lines of C cost: as HTML, for KCachegrind, for speedscope, and as JSON."""

from __future__ import annotations

import html
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.coverage.cost_rows import cost_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_bpf.coverage.cost_rows import CostFile, CostRow
    from pytest_bpf.coverage.line_costs import LineCosts

STYLE = """\
.costs { border-collapse: collapse; font: 13px ui-monospace, monospace; }
.costs td { padding: 0 .8em; text-align: right; white-space: pre; }
.costs td.c { text-align: left; } .costs td.r { text-align: left; opacity: .7; }
.costs tr.gap td { border-top: 1px dashed #999; }
"""

UNIT = "machine instructions"


def html_part(rows: Sequence[CostRow], unit: str = UNIT) -> str:
    """Return annotated sources as a piece of HTML, to put into a page.

    The darker a line, the greater its share of all that was spent.
    """
    tables = "".join(_table(file, unit) for file in cost_files(rows))
    return f"<style>{STYLE}</style>{tables}"


def html_page(rows: Sequence[CostRow], unit: str = UNIT) -> str:
    """Return a page that opens by itself."""
    head = "<meta charset='utf-8'><title>What lines of BPF cost</title>"
    return f"<!doctype html><html><head>{head}</head><body>{html_part(rows, unit)}</body></html>\n"


def speedscope(costs: LineCosts) -> str:
    """Return a profile for speedscope: a sample for each line, below its file."""
    frames: list[dict[str, Any]] = []
    samples, weights = [], []
    files: dict[str, int] = {}
    for row in costs.rows():
        if row.file not in files:
            files[row.file] = len(frames)
            frames.append({"name": os.path.relpath(row.file), "file": row.file})
        text = _text(row.file, row.line)
        name = f"{Path(row.file).name}:{row.line} {text}".strip()
        samples.append([files[row.file], len(frames)])
        weights.append(row.amount)
        frames.append({"name": name, "file": row.file, "line": row.line})
    profile = {
        "type": "sampled",
        "name": UNIT,
        "unit": "none",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
    schema = "https://www.speedscope.app/file-format-schema.json"
    whole = {"$schema": schema, "shared": {"frames": frames}, "profiles": [profile]}
    return json.dumps({**whole, "exporter": "pytest-bpf"}) + "\n"


FORMATS: dict[str, Callable[[LineCosts], str]] = {
    "callgrind": lambda costs: costs.callgrind(),
    "speedscope": speedscope,
    "html": lambda costs: html_page(costs.rows()),
    "json": lambda costs: json.dumps([asdict(cost) for cost in costs], indent=1) + "\n",
}
"""By name, what writes the costs of lines."""


def _table(file: CostFile, unit: str) -> str:
    gone = ", which cannot be read" * file.is_gone
    title = f"<h3>{html.escape(os.path.relpath(file.path))}{gone}</h3>"
    head = f"<tr><th>{html.escape(unit)}</th><th>share</th><th>line</th></tr>"
    return f"{title}<table class='costs'>{head}{''.join(_rows(file))}</table>"


def _rows(file: CostFile) -> Iterator[str]:
    for number, part in enumerate(file.parts):
        for at, line in enumerate(part):
            gap = " class='gap'" if number and not at else ""
            amount = f"{line.row.amount:,}" if line.row else ""
            share = f"{line.share:.1f} %" if line.row else ""
            heat = f" style='background: rgba(220, 80, 20, {0.9 * line.share / 100:.3f})'"
            remark = html.escape(line.row.remark.strip()) if line.row else ""
            yield (
                f"<tr{gap}><td>{amount}</td><td>{share}</td><td>{line.line}</td>"
                f"<td class='c'{heat if line.row else ''}>{html.escape(line.text)}</td>"
                f"<td class='r'>{remark}</td></tr>"
            )


def _text(path: str, line: int) -> str:
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""
