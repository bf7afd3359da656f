"""``pytest-bpf top``: the machine's programs and maps, live, or once as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_bpf.costs.instruments.activity import (
    Activity,
    Look,
    between,
    look,
    with_attach_points,
)
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys.descriptors import objects_open_in
from pytest_bpf.reports.top_keys import View, keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Group
    from rich.table import Table

EXAMPLES = """\
pytest-bpf top                         refresh every second, until q or Ctrl-C
pytest-bpf top --once --json           one look of a second, for a script
pytest-bpf top --name count --sort memory
pytest-bpf top --type xdp --pid 1234   of one type, of what a process holds open
pytest-bpf top --attached eth0         what is attached to an interface
"""

SORTS = ("cpu", "runs", "ns", "memory", "name", "id")

BUSY, HOT = 0.01, 0.1
"""Shares of a CPU from which on a program is yellow, and red."""

LOOKS = 20
"""Looks of which the live table has a small history."""

BLOCKS = " ▁▂▃▄▅▆▇█"
"""The heights of a history."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; the status is 1, with a sentence, when it cannot see anything."""
    options = parser().parse_args(arguments)
    once = options.once or options.json or not sys.stdout.isatty()
    try:
        if not options.json:
            _need_rich()
        with statistics():
            before = look()
            if once:
                time.sleep(options.interval)
                _print(
                    _filter(_between(before, look()), options, View(options.sort)),
                    as_json=options.json,
                )
            else:
                _live(before, options)
    except UnavailableError as error:
        print(f"pytest-bpf top: {error}", file=sys.stderr)  # noqa: T201 (a command)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def tables(
    activity: Activity,
    rows: int | None = None,
    history: Mapping[int, Sequence[float]] | None = None,
) -> Group:
    """Return the tables of programs and of maps, each with at most so many rows.

    ``history`` are the shares of a CPU of earlier looks, by the ids of programs.
    """
    from rich.console import Group  # noqa: PLC0415 (an extra of its own)

    return Group(_program_table(activity, rows, history or {}), _map_table(activity, rows))


def sparkline(values: Sequence[float]) -> str:
    """Return values as blocks, the greatest the highest.

    >>> sparkline([0, 1, 2, 4]), sparkline([0, 0]), sparkline([])
    (' ▂▄█', '  ', '')
    """
    most = max(values, default=0.0)
    return "".join(BLOCKS[round(8 * value / most) if most else 0] for value in values)


def _program_table(
    activity: Activity, rows: int | None, history: Mapping[int, Sequence[float]]
) -> Table:
    table = _table(
        f"programs: {len(activity.programs)}, {activity.cpu:.2%} of one CPU",
        ("id", "program", "type"),
        ("runs/s", "ns/run", "CPU", "memory", "machine code"),
    )
    table.add_column("attached to", no_wrap=True, overflow="ellipsis")
    if history:
        table.add_column("CPU, last looks", no_wrap=True)
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
            _places(program.attached),
            *([sparkline(list(history.get(program.id, ())))] if history else []),
            style="red" if program.cpu >= HOT else "yellow" if program.cpu >= BUSY else None,
        )
    return table


def _places(attached: Sequence[str]) -> str:
    """Return the first place, and how many more there are.

    >>> _places(["veth0 xdp", "veth1 xdp", "lo xdp"])
    'veth0 xdp, +2'
    """
    if not attached:
        return "-"
    return attached[0] + (f", +{len(attached) - 1}" if len(attached) > 1 else "")


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
    """Refresh a full screen until ``q`` or Ctrl-C."""
    from rich.console import Console, Group  # noqa: PLC0415 (an extra of its own)
    from rich.live import Live  # noqa: PLC0415

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the terminal is put back
    console = Console()
    history: dict[int, deque[float]] = {}
    view, activity = View(options.sort), Activity(0.0, (), ())
    with keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:

        def show() -> None:
            room = max(2, (console.height - 7) // 2)
            shown = _filter(activity, options, view)
            live.update(Group(tables(shown, room, history), view.footer), refresh=True)

        while not view.ended:
            for key in pressed(options.interval):
                view = view.press(key)
                if view.ended:
                    return
                show()
            after = look()
            activity = _between(before, after)
            for program in activity.programs:
                history.setdefault(program.id, deque(maxlen=LOOKS)).append(program.cpu)
            show()
            before = after


def _between(before: Look, after: Look) -> Activity:
    return with_attach_points(between(before, after))


def _filter(activity: Activity, options: argparse.Namespace, view: View) -> Activity:
    """Return what the user wants to see of it, in the order wanted."""
    orders: dict[str, Any] = {
        "cpu": lambda program: -program.cpu,
        "runs": lambda program: -program.runs,
        "ns": lambda program: -program.ns_per_run,
        "name": lambda one: one.name,
        "memory": lambda one: -one.memory,
        "id": lambda one: one.id,
    }
    owned = None if options.pid is None else _owned_by(options.pid)

    def wanted(kind: str, one: Any) -> bool:
        named = options.name in one.name and options.type in {"", one.type}
        if options.attached:
            named &= any(options.attached in place for place in getattr(one, "attached", ()))
        return named and view.shows(one) and (owned is None or (kind, one.id) in owned)

    programs = [one for one in activity.programs if wanted("program", one)]
    maps = [one for one in activity.maps if wanted("map", one)]
    if view.sort in {"name", "id"}:  # else they stand by their memory
        maps.sort(key=orders[view.sort])
    return Activity(activity.seconds, tuple(sorted(programs, key=orders[view.sort])), tuple(maps))


def _owned_by(pid: int) -> set[tuple[str, int]]:
    """Return what a process holds open; raises `UnavailableError` for one of somebody else."""
    try:
        return objects_open_in(pid)
    except PermissionError:
        raise UnavailableError(
            f"--pid {pid}: that process is somebody else's; run as root"
        ) from None


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


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        prog="pytest-bpf top",
        description="Show what the BPF programs and maps of this machine do and take. The kernel's "
        "statistics are on while it runs, and off again after.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--once", action="store_true", help="one table, as without a terminal")
    result.add_argument("--json", action="store_true", help="one look as JSON")
    result.add_argument("--interval", type=_seconds, default=1.0, help="seconds between two looks")
    result.add_argument("--name", default="", help="only programs and maps with this in their name")
    result.add_argument("--type", default="", help="only those of this type: xdp, hash")
    result.add_argument(
        "--attached", default="", metavar="TEXT",
        help="only programs that are attached to a place with this in it: eth0, tcx, do_nanosleep",
    )  # fmt: skip
    result.add_argument("--pid", type=int, help="only those that this process holds open")
    result.add_argument("--sort", choices=SORTS, default="cpu", help="the order of the programs")
    return result


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.01 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be from 0.01 to 3600 seconds")
    return seconds
