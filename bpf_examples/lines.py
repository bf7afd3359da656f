"""Count the lines of the suites' programs that their tests run.

    python -m bpf_examples.lines                        # natively, then on Debian's kernel
    python -m bpf_examples.lines lru jit                # those of two suites
    python -m bpf_examples.lines --markdown lines.md

Tests that measure run programs as they ship, and count no lines. A line that no input reaches says
so in the source, with the reason: ``/* no cover: REASON */``. The status is 1 when a program that
is the guide's advice (any but those named in `WRONG`) has another line that did not run.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SUITES = Path(__file__).parent

PLACES = {"natively": (), "Debian's kernel": ("--bpf-kernel", "debian")}
"""Where the suites run, and the options for it."""

WRONG = (
    "before",
    "careless",
    "padding",
    "perf",
    "prefix",
    "racy",
    "reread",
    "shortcuts",
    "silent",
    "by_pid",
)
"""The programs that show what not to do: some of their lines need no input."""

REFUSED = ("reread",)
"""The programs that show what the verifier refuses: they run nowhere."""

PAGE = """\
# Lines that the suites run

Each program of the reference suites, how many lines with statements it has, and how many of them
its suite's tests run, [counted](how-to/coverage.md) by clang's counters, natively and on Debian's
kernel, which has kprobes. Tests that measure are not counted. `make lines` makes this page, and
fails when a line of a program that follows the guide did not run.

"""

REASON = re.compile(r"/\* no cover: (.*?) \*/")


@dataclass(frozen=True)
class Program:
    """A source: how many statements it has, those that no place ran, and how many ran natively."""

    name: str
    statements: int
    missing: tuple[int, ...]
    natively: int
    reasons: tuple[str, ...] = ()

    @property
    def is_advice(self) -> bool:
        """Whether it is what the guide advises, and no example of what it advises against."""
        return Path(self.name).name.partition(".")[0] not in WRONG

    @property
    def ran(self) -> int:
        """How many of its statements ran somewhere."""
        return self.statements - len(self.missing)


def sources(suites: Iterable[str] = ()) -> list[Path]:
    """Return the suites' programs that can run."""
    chosen = set(suites)
    paths = [p for p in sorted(SUITES.glob("*/*.bpf.c")) if p.name.partition(".")[0] not in REFUSED]
    return [path for path in paths if not chosen or path.parent.name in chosen]


def programs(suites: Sequence[str], places: Iterable[Sequence[str]]) -> list[Program]:
    """Run suites in some places, and return which lines of their programs ran."""
    runs = [counted(suites, options) for options in places]
    result = []
    for path in sources(suites):
        name = f"{path.parent.name}/{path.name}"
        entries = [run[name] for run in runs if name in run]
        if not entries:
            raise RuntimeError(f"no test loaded {name}, or each one that does also measures")
        missing = [{*entry["missing"], *entry["dead"]} for entry in entries]
        statements = entries[0]["statements"]
        natively = statements - len(missing[0]) if name in runs[0] else 0
        everywhere = tuple(sorted(set.intersection(*missing)))
        result.append(Program(name, statements, everywhere, natively, reasons(path)))
    return result


def reasons(path: Path) -> tuple[str, ...]:
    """Return why lines of a source are left out."""
    return tuple(dict.fromkeys(REASON.findall(path.read_text())))


def counted(suites: Sequence[str], options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run the suites' tests once, and return what ran of each program."""
    names = [f"{__package__}.{suite}" for suite in suites] or [str(__package__)]
    with tempfile.TemporaryDirectory(prefix="lines-") as folder:
        report = Path(folder, "lines.json")
        without = ("-m", "not bpf_claim")  # claims are measured
        own = ("-q", "-p", "no:cacheprovider", f"--bpf-cov-report=json:{report}", *without)
        done = subprocess.run(
            (sys.executable, "-m", "pytest", *own, *options, "--pyargs", *names),
            cwd=SUITES.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not report.exists():
            raise RuntimeError(f"the suites' tests fail:\n{done.stdout[-4000:]}{done.stderr}")
        files = json.loads(report.read_text())["files"]
    return {"/".join(Path(file["source"]).parts[-2:]): file for file in files}


def markdown(table: Sequence[Program]) -> list[str]:
    """Return the page."""
    advice = [program for program in table if program.is_advice]
    others = [program for program in table if not program.is_advice]
    head = (
        "program",
        "lines",
        "ran",
        "of these only on Debian's",
        "did not run",
        "left out because",
    )
    rows = [
        (
            program.name,
            str(program.statements),
            str(program.ran),
            str(program.ran - program.natively or ""),
            ", ".join(map(str, program.missing)),
            "; ".join(program.reasons),
        )
        for program in table
    ]
    return [
        *PAGE.splitlines(),
        f"Programs that follow the guide: {_share(advice)} ran; others: {_share(others)}.",
        "",
        *("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)),
    ]


def _share(table: Sequence[Program]) -> str:
    ran, lines = (sum(getattr(each, part) for each in table) for part in ("ran", "statements"))
    return f"{ran} of {lines} lines"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m bpf_examples.lines", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    options = parser.parse_args()
    table = programs(options.suites, PLACES.values())
    for program in table:
        missing = f", not {', '.join(map(str, program.missing))}" if program.missing else ""
        print(f"{program.name}: {program.ran} of {program.statements} lines{missing}")
    if options.markdown:
        options.markdown.write_text("\n".join([*markdown(table), ""]))
    return any(program.missing for program in table if program.is_advice)


if __name__ == "__main__":
    sys.exit(main())
