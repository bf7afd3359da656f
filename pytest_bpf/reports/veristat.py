"""veristat's CSV, written and read: what the verifier counted, by object and program."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from pytest_bpf.budgets.environment import Environment
from pytest_bpf.budgets.results import Key, ResultFileError, Results
from pytest_bpf.costs.figures.figure import Figure, Instrument

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS: Mapping[str, tuple[str, Instrument]] = {
    "total_insns": ("verified_insns", "verifier"),
    "total_states": ("total_states", "verifier"),
    "peak_states": ("peak_states", "verifier"),
    "stack_depth": ("stack_depth", "verifier"),
    "prog_size_jited": ("prog_size_jited", "kernel"),
}
"""veristat's columns that are metrics here; its others are read over."""

COMMON_COLUMNS = ("total_insns", "total_states", "peak_states")
"""Those that every version of veristat reads."""


def veristat(session_results: Results) -> str:
    """Return the CSV, one line for each object and program, each once.

    What the same program reads in several tests is the same; of a program that does differ, by
    its globals or the kernel, the dearest is written.
    """
    lines = [",".join(("file_name", "prog_name", "verdict", *COMMON_COLUMNS))]
    for (source, program), row in sorted(_by_program(session_results).items()):
        figures = (str(int(row.get(column, 0))) for column in COMMON_COLUMNS)
        lines.append(",".join((source, program, "success", *figures)))
    return "\n".join([*lines, ""])


def _by_program(session_results: Results) -> dict[tuple[str, str], dict[str, float]]:
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for key, figure in session_results.figures.items():
        kind, _, name = key.subject.partition(" ")
        columns = [c for c in COMMON_COLUMNS if COLUMNS[c][0] == key.metric]
        if kind != "prog" or not columns or figure.value is None:
            continue
        source = session_results.sources.get((key.test, key.subject), key.test)
        row = rows.setdefault((_plain(source), _plain(name.rpartition(":")[2])), {})
        row[columns[0]] = max(figure.value, row.get(columns[0], 0))
    return rows


def read_veristat(text: str, path: str = "") -> Results:
    """Read veristat's CSV, as ``veristat -o csv`` prints it; raises `ResultFileError`.

    A program that was rejected has no figures, and each says so.
    """
    reader = csv.DictReader(io.StringIO(text))
    missing = {"file_name", "prog_name"} - set(reader.fieldnames or ())
    if missing:
        lacks = " and no ".join(sorted(missing))
        raise ResultFileError(f"{path} is no CSV of veristat: its first line has no {lacks}")
    figures: dict[Key, Figure] = {}
    for number, row in enumerate(reader, start=2):
        subject = f"prog {row['prog_name']}"
        for column, (metric, instrument) in COLUMNS.items():
            if row.get(column) is None:
                continue
            where = Environment("", "", "", instrument)
            key = Key(where, row["file_name"], subject, metric)
            try:
                value = int(row[column])
            except ValueError:
                raise ResultFileError(
                    f"{path}, line {number}: {column} {row[column]!r} is no whole number"
                ) from None
            figures[key] = (
                Figure.missing(metric, subject, "the verifier rejected it", instrument)
                if row.get("verdict") == "failure"
                else Figure.certain(metric, subject, value, instrument)
            )
    return Results(figures)


def veristat_comparison(before: Results, after: Results) -> str:
    """Return the CSV that ``veristat -C -o csv`` prints for two results.

    A program that one of them lacks has zeros there, and no verdict.
    """
    sides = [_by_program(session_results) for session_results in (before, after)]
    headings = [
        f"{column}_{suffix}" for column in COMMON_COLUMNS for suffix in ("base", "comp", "diff")
    ]
    verdicts = ("verdict_base", "verdict_comp", "verdict_diff")
    lines = [",".join(("file_name", "prog_name", *verdicts, *headings))]
    for source, program in sorted({*sides[0], *sides[1]}):
        old, new = (side.get((source, program)) for side in sides)
        cells = [source, program, "success" if old else "", "success" if new else ""]
        cells.append("MATCH" if old and new else "MISMATCH")
        for column in COMMON_COLUMNS:
            base, comp = (int(row.get(column, 0)) if row else 0 for row in (old, new))
            share = (comp - base) / base if base and new else 1.0 if comp >= base else -1.0
            cells += [str(base), str(comp), f"{comp - base:+d} ({100 * share:+.2f}%)"]
        lines.append(",".join(cells))
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    """Return a name without what veristat's reader takes for the end of a column."""
    return text.replace(",", ";").replace("\n", " ")
