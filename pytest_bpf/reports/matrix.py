"""The table of kernels: what each test, or each file of tests, came to on each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

MOST_TESTS = 40
"""How many tests a table shows one by one; with more it shows files."""

ORDER = ("error", "failed", "xpassed", "passed", "xfailed", "skipped")
"""What a test can come to, the most important first."""

NOT_RUN = frozenset({"skipped"})


def matrix_table(
    outcomes: Mapping[tuple[str, str], str], kernels: Sequence[str], *, tests: int = MOST_TESTS
) -> list[str]:
    """Return the lines of a table, tests against kernels, the totals last.

    ``outcomes`` are by test (its node id without the kernel) and kernel, each one of `ORDER`. With
    more than ``tests`` of them a row is a file, with counts.
    """
    names = list(dict.fromkeys(test for test, _ in outcomes))
    grouped = {name: name if len(names) <= tests else name.partition("::")[0] for name in names}
    rows = [("", *kernels)]
    for row in dict.fromkeys(grouped.values()):
        of_row = [name for name in names if grouped[name] == row]
        rows.append((row, *(_cell(outcomes, of_row, kernel) for kernel in kernels)))
    rows.append(("total", *(_counts(outcomes, names, kernel) for kernel in kernels)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def nowhere(outcomes: Mapping[tuple[str, str], str]) -> list[str]:
    """Return the tests that ran on no kernel: skipped on each."""
    ran = {test for (test, _), outcome in outcomes.items() if outcome not in NOT_RUN}
    return [test for test in dict.fromkeys(test for test, _ in outcomes) if test not in ran]


def verifier_table(
    insns: Mapping[tuple[str, str], Collection[int]],
    kernels: Sequence[str],
    rejected: Collection[tuple[str, str]] = (),
) -> list[str]:
    """Return the lines of a table: instructions that each kernel's verifier processed, by program.

    ``insns`` are by program and kernel, as are programs that were ``rejected``; several are shown
    as a range, none as "-".
    """
    rows = [("", *kernels)]
    for program in sorted({program for program, _ in (*insns, *rejected)}):
        cells = []
        for kernel in kernels:
            cell = _range(sorted(insns.get((program, kernel), ())))
            refused = "rejected" * ((program, kernel) in rejected)
            cells.append(refused if refused and cell == "-" else f"{cell} {refused}".rstrip())
        rows.append((program, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))) for row in rows
    ]


def skip_reasons(reasons: Mapping[str, str]) -> list[str]:
    """Return why a test was skipped on each kernel, a line for each reason with its kernels."""
    kernels: dict[str, list[str]] = {}
    for kernel, reason in reasons.items():
        kernels.setdefault(reason, []).append(kernel)
    return [f"{', '.join(names)}: {reason}" for reason, names in kernels.items()]


def _range(figures: Sequence[int]) -> str:
    if not figures:
        return "-"
    low, high = f"{figures[0]:,}", f"{figures[-1]:,}"
    return low if low == high else f"{low}-{high}"


def _cell(outcomes: Mapping[tuple[str, str], str], tests: Sequence[str], kernel: str) -> str:
    if len(tests) == 1:
        return outcomes.get((tests[0], kernel), "-")
    return _counts(outcomes, tests, kernel)


def _counts(outcomes: Mapping[tuple[str, str], str], tests: Iterable[str], kernel: str) -> str:
    counts = Counter(outcomes[test, kernel] for test in tests if (test, kernel) in outcomes)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ORDER if counts[outcome]) or "-"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join(cells).rstrip()
