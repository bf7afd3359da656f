"""``pytest-bpf top``: the machine's programs and maps, live, or once as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_bpf.costs.activity import Activity, Look, between, look
from pytest_bpf.costs.statistics import statistics
from pytest_bpf.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group
    from rich.table import Table

EXAMPLES = """\
pytest-bpf top                         refresh every second, until Ctrl-C
pytest-bpf top --once --json           one look of a second, for a script
pytest-bpf top --name count --sort memory
"""

SORTS = ("cpu", "runs", "memory", "id")


def main(arguments: Sequence[str]) -> int:
    """Run the command; the status is 1, with a sentence, when it cannot see anything."""
    options = _parser().parse_args(arguments)
    once = options.once or options.json or not sys.stdout.isatty()
    try:
        if not options.json:
            _need_rich()
        with statistics():
            before = look()
            if once:
                time.sleep(options.interval)
                _print(_chosen(between(before, look()), options), as_json=options.json)
            else:
                _live(before, options)
    except UnavailableError as error:
        print(f"pytest-bpf top: {error}", file=sys.stderr)  # noqa: T201 (a command)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def tables(activity: Activity, rows: int | None = None) -> Group:
    """Return the tables of programs and of maps, each with at most so many rows."""
    from rich.console import Group  # noqa: PLC0415 (an extra of its own)

    return Group(_program_table(activity, rows), _map_table(activity, rows))


def _program_table(activity: Activity, rows: int | None) -> Table:
    table = _table(
        f"programs: {len(activity.programs)}, {activity.cpu:.2%} of one CPU",
        ("id", "program", "type"),
        ("runs/s", "ns/run", "CPU", "memory", "machine code"),
    )
    for program in activity.programs[:rows]:
        table.add_row(
            str(program.id),
            program.name or "-",
            program.type,
            f"{program.runs_per_second:,.0f}",
            f"{program.ns_per_run:,.0f}" if program.runs else "-",
            f"{program.cpu:.2%}",
            _bytes(program.memory),
            _bytes(program.machine_code),
        )
    return table


def _map_table(activity: Activity, rows: int | None) -> Table:
    table = _table(
        f"maps: {len(activity.maps)}, with the programs {_bytes(activity.memory)}",
        ("id", "map", "type"),
        ("room", "memory"),
    )
    for one in activity.maps[:rows]:
        room = f"{one.max_entries:,}"
        table.add_row(str(one.id), one.name or "-", one.type, room, _bytes(one.memory))
    return table


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    from rich.table import Table  # noqa: PLC0415 (an extra of its own)

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _print(activity: Activity, *, as_json: bool) -> None:
    if as_json:
        json.dump(activity.as_dict(), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    from rich.console import Console  # noqa: PLC0415 (an extra of its own)

    wide = None if sys.stdout.isatty() else 160
    Console(width=wide).print(tables(activity))


def _live(before: Look, options: argparse.Namespace) -> None:
    """Refresh a full screen until Ctrl-C."""
    from rich.console import Console  # noqa: PLC0415 (an extra of its own)
    from rich.live import Live  # noqa: PLC0415

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(options.interval)
            after = look()
            room = max(2, (console.height - 6) // 2)
            activity = _chosen(between(before, after), options)
            live.update(tables(activity, room), refresh=True)
            before = after


def _chosen(activity: Activity, options: argparse.Namespace) -> Activity:
    """Return what the user wants to see of it, in the order wanted."""
    keys: dict[str, Any] = {
        "cpu": lambda program: -program.cpu,
        "runs": lambda program: -program.runs,
        "memory": lambda program: -program.memory,
        "id": lambda program: program.id,
    }
    wanted = [p for p in activity.programs if options.name in p.name]
    return Activity(
        activity.seconds,
        tuple(sorted(wanted, key=keys[options.sort])),
        tuple(one for one in activity.maps if options.name in one.name),
    )


def _need_rich() -> None:
    try:
        import_module("rich.live")
    except ImportError:
        raise UnavailableError(
            "needs rich to draw tables; pip install 'pytest-bpf[top]', or use --json"
        ) from None


def _bytes(size: float) -> str:
    """Return a size for the eye.

    >>> _bytes(12), _bytes(1_234_567), _bytes(0)
    ('12 B', '1.2 MB', '-')
    """
    if not size:
        return "-"
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytest-bpf top",
        description="Show what the BPF programs and maps of this machine do and take. The kernel's "
        "statistics are on while it runs, and off again after.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--once", action="store_true", help="one table, as without a terminal")
    parser.add_argument("--json", action="store_true", help="one look as JSON")
    parser.add_argument("--interval", type=_seconds, default=1.0, help="seconds between two looks")
    parser.add_argument("--name", default="", help="only programs and maps with this in their name")
    parser.add_argument("--sort", choices=SORTS, default="cpu", help="the order of the programs")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.01 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be from 0.01 to 3600 seconds")
    return seconds
