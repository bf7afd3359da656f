"""Which lines of C ran: as a table, as LCOV, as JSON and as HTML."""

from __future__ import annotations

import html
import json
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_bpf.coverage.summary import FileSummary

NAME_THE_PLUGIN = (
    "for the command `coverage` itself, name the plugin in its configuration: "
    'plugins = ["pytest_bpf.coverage"] in [tool.coverage.run]'
)

STYLE = """\
body { font: 14px system-ui, sans-serif; margin: 2em; }
table { border-collapse: collapse; } td, th { padding: 0 .8em; text-align: right; }
td.c, td.name { text-align: left; white-space: pre; font-family: monospace; }
tr.ran td.c { background: #dfd; } tr.missed td.c { background: #fdd; }
tr.dead td.c { background: #eee; color: #777; } tr.part td.c { background: #ffd; }
"""


def table(summaries: Sequence[FileSummary], root: Path) -> list[str]:
    """Return the lines of a table, with the functions that did not run below their source."""
    if not summaries:
        return ["no line of C was counted"]
    names = [_name(each, root) for each in summaries]
    width = max(len(name) for name in (*names, "source"))
    rows = [f"{'source':<{width}}  lines  missed  branches  missed  cover  missing"]
    for name, each in zip(names, summaries, strict=True):
        outcomes, seen = each.outcomes
        mark = "~" if each.file.approximate else ""
        rows.append(
            f"{name:<{width}}  {len(each.statements):5}  {len(each.missing):6}  {outcomes:8}  "
            f"{outcomes - seen:6}  {mark + format(each.percent, '.0f') + '%':>5}  "
            f"{ranges(each.missing)}".rstrip()
        )
        if each.dead:
            rows.append(f"{'':<{width}}  dead in every load: {ranges(each.dead)}")
        idle = [f.name for f in each.functions if not f.count]
        if idle:
            rows.append(f"{'':<{width}}  functions that did not run: {', '.join(idle)}")
    return rows


def render(kind: str, summaries: Sequence[FileSummary], root: Path) -> str:
    """Return a report as text: ``lcov``, ``json`` or ``html``."""
    if kind == "lcov":
        return "".join(map(_lcov, summaries))
    if kind == "json":
        return json.dumps({"files": [_json(each, root) for each in summaries]}, indent=1) + "\n"
    body = "".join(_html(each, root) for each in summaries)
    head = f"<meta charset='utf-8'><title>Lines of BPF</title><style>{STYLE}</style>"
    return f"<!doctype html><html><head>{head}</head><body>{body}</body></html>\n"


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as text, neighbours as a range.

    >>> ranges([1, 2, 3, 7])
    '1-3, 7'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _name(each: FileSummary, root: Path) -> str:
    build = f" [{each.file.build}]" if each.file.build else ""
    return os.path.relpath(each.file.path, root) + build


def _lcov(each: FileSummary) -> str:
    name = re.sub(r"\W", "_", each.file.build)  # LCOV takes no other signs
    lines = [f"TN:{name}"] if name else []
    lines.append(f"SF:{each.file.path}")
    functions = each.functions
    lines += [f"FN:{f.line},{f.name}" for f in functions]
    lines += [f"FNDA:{f.count},{f.name}" for f in functions]
    lines += [f"FNF:{len(functions)}", f"FNH:{sum(f.count > 0 for f in functions)}"]
    for number, branch in enumerate(each.branches):
        reached = branch.true + branch.false
        for side, count in enumerate((branch.true, branch.false)):
            lines.append(f"BRDA:{branch.line},{number},{side},{count if reached else '-'}")
    outcomes, seen = each.outcomes
    lines += [f"BRF:{outcomes}", f"BRH:{seen}"]
    lines += [f"DA:{line},{count}" for line, count in each.lines.items()]
    ran = sum(count > 0 for count in each.lines.values())
    lines += [f"LF:{len(each.lines)}", f"LH:{ran}", "end_of_record", ""]
    return "\n".join(lines)


def _json(each: FileSummary, root: Path) -> dict[str, object]:
    outcomes, seen = each.outcomes
    return {
        "source": os.path.relpath(each.file.path, root),
        "build": each.file.build,
        "approximate": each.file.approximate,
        "statements": len(each.statements),
        "missing": each.missing,
        "dead": each.dead,
        "percent": round(each.percent, 2),
        "outcomes": outcomes,
        "outcomes_seen": seen,
        "lines": {str(line): count for line, count in each.lines.items()},
        "branches": [
            {"line": b.line, "column": b.column, "true": b.true, "false": b.false}
            for b in each.branches
        ],
        "functions": [
            {"name": f.name, "line": f.line, "end_line": f.end_line, "count": f.count}
            for f in each.functions
        ],
    }


def _html(each: FileSummary, root: Path) -> str:
    title = f"<h2>{html.escape(_name(each, root))}: {each.percent:.0f} %</h2>"
    return f"{title}<table>{''.join(_rows(each))}</table>"


def _rows(each: FileSummary) -> Iterator[str]:
    part = {b.line for b in each.branches if (b.true == 0) != (b.false == 0)}
    for line, text in enumerate(each.text.splitlines(), 1):
        count = each.lines.get(line)
        kind = "none" if count is None else "ran" if count else "missed"
        if count == 0 and line in each.file.dead:
            kind = "dead"
        elif count and line in part:
            kind = "part"
        shown = "" if count is None else str(count)
        yield (
            f"<tr class='{kind}'><td>{line}</td><td>{shown}</td>"
            f"<td class='c'>{html.escape(text)}</td></tr>"
        )
