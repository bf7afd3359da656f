"""The HTML report: one file that opens without network, by jinja2; its plots are pygal's."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_bpf.budgets.claims import Claim
from pytest_bpf.budgets.quantity import format_change, format_value
from pytest_bpf.costs.figures.figure import METRICS
from pytest_bpf.errors import UnavailableError
from pytest_bpf.reports.claim_table import claim_lines
from pytest_bpf.reports.latencies import LatencyRow, latency_rows
from pytest_bpf.reports.matrix import ORDER
from pytest_bpf.reports.timeline import Timeline, timeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_bpf.budgets.annotated import AnnotatedFile, AnnotatedLine
    from pytest_bpf.budgets.outcomes import Outcome
    from pytest_bpf.budgets.results import Key, Results
    from pytest_bpf.costs.figures.figure import Figure

TEMPLATE = Path(__file__).parent / "report.html.j2"

SIGNS = {
    "passed": "✓",
    "failed": "✗",
    "error": "!",
    "skipped": "-",
    "xfailed": "x",
    "xpassed": "X",
}
"""What a cell shows besides its colour."""

MOST_LINKS = 60
"""Files of one failed test that are linked."""

MOST_PLOTS = 200
"""Plots in one report; the figures behind the others are in its tables."""

LOUD = ("fail", "warning", "inconclusive", "not measured")


@dataclass(frozen=True)
class Row:
    """One test of the matrix: its outcomes by kernel, None where it did not run."""

    name: str
    cells: tuple[Outcome | None, ...]

    @property
    def results(self) -> str:
        """The words of its outcomes, to filter by."""
        return " ".join(sorted({cell.result for cell in self.cells if cell}))


@dataclass(frozen=True)
class File:
    """The tests of one file, and how many came to what."""

    name: str
    rows: tuple[Row, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Cost:
    """A figure as the report shows it; ``bullet`` are shares of the widest, 0 to 100."""

    subject: str
    metric: str
    test: str
    where: str
    value: str
    meaning: str
    limit: str = ""
    verdict: str = ""
    bullet: tuple[float, float] | None = None
    plot: str = ""


@dataclass(frozen=True)
class FailedTest:
    """A failed test: its outcome, its path as a time line, and links to the files kept of it."""

    outcome: Outcome
    timeline: Timeline | None
    links: tuple[tuple[str, str], ...]
    more: int = 0


@dataclass(frozen=True)
class SourceLine:
    """A line of C: ``share`` is that of all instructions, or of the most runs, 0 to 100."""

    line: AnnotatedLine
    share: float
    gap: bool


@dataclass(frozen=True)
class Source:
    """A source with its lines, how many of those with code ran, and what is known of them."""

    path: str
    lines: tuple[SourceLine, ...]
    ran: int
    code: int
    counted: bool
    costed: bool


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    title: str
    kernels: tuple[str, ...]
    counts: Mapping[str, int]
    seconds: float
    failures: tuple[FailedTest, ...]
    changes: tuple[Mapping[str, str], ...]
    files: tuple[File, ...]
    costs: tuple[Cost, ...]
    claims: tuple[Any, ...]
    latencies: tuple[LatencyRow, ...]
    sources: tuple[Source, ...]
    signs: Mapping[str, str] = field(default_factory=lambda: SIGNS)


def html(
    results: Results,
    *,
    history: Sequence[Results] = (),
    title: str = "pytest-bpf",
    folder: Path | None = None,
) -> str:
    """Return the report. ``history`` are earlier results, the oldest first.

    ``folder`` is where it is written: files that were kept of failed tests are linked from there.

    Raises `UnavailableError` without the extra ``report``.
    """
    check_extra()
    import jinja2  # noqa: PLC0415 (an extra)

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(page=page(results, history, title, folder))


def check_extra() -> None:
    """Raise `UnavailableError` without the extra ``report``."""
    missing = [name for name in ("jinja2", "pygal") if not _is_there(name)]
    if missing:
        raise UnavailableError(
            f"the HTML report needs jinja2 and pygal ({' and '.join(missing)} missing): "
            "pip install 'pytest-bpf[report]'"
        )


def _is_there(name: str) -> bool:
    """Say whether a module can be imported, and do not import it: that belongs to the end."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it is None in sys.modules
        return False


def _import_pygal() -> Any:
    """Import pygal, and undo what ``importlib_metadata``, which it imports, does to imports.

    That puts its own finder in the place of Python's, for good: later imports warn of it.
    """
    finders, find = list(sys.meta_path), vars(PathFinder)["find_distributions"]
    import pygal  # noqa: PLC0415 (an extra)

    sys.meta_path[:] = [finder for finder in sys.meta_path if finder in finders]
    PathFinder.find_distributions = find  # type: ignore[method-assign]
    return pygal


def page(
    results: Results, history: Sequence[Results], title: str, folder: Path | None = None
) -> Page:
    """Return what the template shows."""
    kernels = tuple(dict.fromkeys(outcome.kernel for outcome in results.tests))
    counts = Counter(str(outcome.result) for outcome in results.tests)
    return Page(
        title=title,
        kernels=kernels,
        counts={name: counts[name] for name in ORDER if counts[name]},
        seconds=sum(outcome.seconds for outcome in results.tests),
        failures=tuple(
            _failed(o, folder or Path.cwd())
            for o in results.tests
            if o.result in {"failed", "error"}
        ),
        changes=tuple(_changes(results)),
        files=tuple(_files(results.tests, kernels)),
        costs=tuple(_costs(results, history)),
        claims=tuple(claim_lines(map(Claim.from_dict, results.claims))),
        latencies=tuple(latency_rows(results)),
        sources=tuple(map(_source, results.annotated)),
    )


def _failed(outcome: Outcome, folder: Path) -> FailedTest:
    files = sorted(outcome.artifacts, key=lambda name: (name.count("/"), name))
    links = [
        (quote(os.path.relpath(Path(name).absolute(), folder.absolute())), _short(name, files))
        for name in files[:MOST_LINKS]
    ]
    return FailedTest(outcome, timeline(outcome.path), tuple(links), len(files) - len(links))


def _short(name: str, names: Sequence[str]) -> str:
    """Return a file's name within the folder of its test."""
    common = os.path.commonpath([Path(each).absolute().parent for each in names])
    return os.path.relpath(Path(name).absolute(), common)


def _source(file: AnnotatedFile) -> Source:
    costs = [line.instructions or 0 for line in file.lines]
    counts = [line.count for line in file.lines if line.count is not None]
    whole, most = sum(costs), max(counts, default=0)
    rows = []
    for number, line in enumerate(file.lines):
        share = 100 * (line.instructions or 0) / whole if whole else 0.0
        if not whole and most:
            share = 100 * (line.count or 0) / most
        gap = number > 0 and line.number != file.lines[number - 1].number + 1
        rows.append(SourceLine(line, round(share, 1), gap))
    ran = sum(count > 0 for count in counts)
    return Source(file.path, tuple(rows), ran, len(counts), bool(counts), any(costs))


def _changes(results: Results) -> list[dict[str, str]]:
    """Return what differs from the baseline or breaks a limit, the worst first."""
    rows = []
    for finding in results.findings:
        verdict, kind = str(finding["verdict"]), str(finding["kind"])
        if verdict not in LOUD and kind not in {"accepted", "better", "new", "gone"}:
            continue
        before, value = finding.get("before"), finding.get("value")
        metric = METRICS.get(str(finding["metric"]))
        change = ""
        if metric and before is not None and value is not None:
            change = format_change(float(before), float(value), metric.unit)
        rows.append(
            {
                "verdict": verdict,
                "kind": kind,
                "subject": str(finding["subject"]),
                "metric": str(finding["metric"]),
                "headline": str(finding["headline"]),
                "change": change,
                "test": str(finding.get("test", "")),
                "kernel": str(finding.get("kernel", "")),
            }
        )
    return sorted(rows, key=lambda row: LOUD.index(row["verdict"]) if row["verdict"] in LOUD else 9)


def _files(tests: Sequence[Outcome], kernels: Sequence[str]) -> list[File]:
    by_file: dict[str, dict[str, dict[str, Outcome]]] = {}
    for outcome in tests:
        file, _, name = outcome.test.partition("::")
        by_file.setdefault(file, {}).setdefault(name or file, {})[outcome.kernel] = outcome
    files = []
    for file, names in by_file.items():
        rows = tuple(
            Row(name, tuple(cells.get(kernel) for kernel in kernels))
            for name, cells in names.items()
        )
        counts = Counter(str(cell.result) for row in rows for cell in row.cells if cell)
        files.append(File(file, rows, {name: counts[name] for name in ORDER if counts[name]}))
    return files


def _costs(results: Results, history: Sequence[Results]) -> list[Cost]:
    limits = {
        (f.get("test"), f.get("subject"), f.get("metric"), f.get("kernel")): f
        for f in results.findings
        if "limit" in f or "target" in f
    }
    costs, plots = [], 0
    for key, figure in sorted(results.figures.items()):
        if figure.value is None:
            continue
        metric = METRICS[key.metric]
        finding = limits.get((key.test, key.subject, key.metric, key.environment.kernel), {})
        bound = finding.get("limit", finding.get("target"))
        earlier = [old.figures[key].value for old in history if key in old.figures]
        plot = ""
        if plots < MOST_PLOTS:
            plot = _plot(figure, [value for value in earlier if value is not None])
            plots += bool(plot)
        costs.append(
            Cost(
                subject=key.subject,
                metric=key.metric,
                test=key.test,
                where=_where(key),
                value=format_value(figure.value, metric.unit),
                meaning=metric.meaning,
                limit=format_value(float(bound), metric.unit) if bound is not None else "",
                verdict=str(finding.get("verdict", "")),
                bullet=_bullet(figure.value, bound),
                plot=plot,
            )
        )
    return costs


def _where(key: Key) -> str:
    return f"{key.environment}, {key.environment.instrument}"


def _bullet(value: float, bound: float | None) -> tuple[float, float] | None:
    """Return where the bar ends and where the limit stands, as shares of the whole width."""
    if bound is None or bound <= 0 or value < 0:
        return None
    whole = max(value, bound) * 1.1
    return round(100 * value / whole, 1), round(100 * bound / whole, 1)


def _plot(figure: Figure, earlier: Sequence[float]) -> str:
    """Return a plot of a figure's history, or else of its batches; empty for one number."""
    values = [*earlier, figure.value] if earlier else list(figure.samples)
    if len(values) < 2:
        return ""
    chart = _import_pygal().Line(
        show_legend=False,
        js=[],
        disable_xml_declaration=True,
        explicit_size=True,
        pretty_print=False,
    )
    chart.add("", values)
    spark = chart.render_sparkline(width=160, height=30, show_dots=bool(earlier))
    return spark.decode() if isinstance(spark, bytes) else str(spark)
