"""``python -m pytest_bpf.vm --kernel debian -- COMMAND``: a command on another kernel."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys.interrupts import lost_sent_again
from pytest_bpf.kernel.sys.processes import leave
from pytest_bpf.kernels import lookup
from pytest_bpf.vm import NO_MACHINE, join, parameters, qemu, run, waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the command line; return its command's exit status, or `join.FAILED`."""
    chosen = _arguments()
    _open_missing()
    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    _listen(heard)
    try:
        with lost_sent_again(lambda: _listen(heard)):
            return _in_a_machine(chosen)
    except KeyboardInterrupt as error:
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    except BpfError as error:
        print(f"pytest-bpf: {error}", file=sys.stderr)  # noqa: T201 (a command)
        return join.FAILED


def _in_a_machine(chosen: argparse.Namespace) -> int:
    try:
        kernel = lookup.find(chosen.kernel)
        if kernel is None:
            return _here(chosen, os.environ)
        machine = qemu.Machine(kernel, chosen.exact, chosen.cpus, chosen.memory)
        if chosen.save:
            return run.save(machine)
        if chosen.wait_at:
            place, log = chosen.wait_at
            return waiting.serve(machine, place, log, chosen.writable, chosen.hang_timeout)
        running = run.start(
            machine,
            chosen.command,
            chosen.writable,
            chosen.hang_timeout,
            terminal=chosen.terminal,
            console=chosen.console,
        )
    except BpfError as error:
        if not chosen.or_here:
            raise
        return _here(chosen, {**os.environ, NO_MACHINE: str(error)})
    return run.follow(machine, running, chosen.hang_timeout, terminal=chosen.terminal)


def _open_missing() -> None:
    """Have a standard input, output and error: what is opened next would be taken for them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _listen(numbers: Sequence[int]) -> int:
    """Hear signals, from the first one on or again; return one of them."""
    for number in numbers:
        signal.signal(number, _interrupt)
    return numbers[0]


def _interrupt(sent: int, _frame: object) -> None:
    """End as by Ctrl-C; a second signal does not disturb the cleaning up."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(sent)


def _here(chosen: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if not chosen.save:
        os.execvpe(chosen.command[0], chosen.command, environment)  # noqa: S606 (the whole point)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pytest_bpf.vm", description=__doc__)
    parser.add_argument(
        "--kernel", required=True, help="'debian', a version, a path to an image, or 'host'"
    )
    parser.add_argument("--exact", action="store_true", help="time is a count of instructions")
    parser.add_argument("--cpus", type=int, default=qemu.CPUS, help="(%(default)s)")
    parser.add_argument(
        "--memory", type=int, default=qemu.MEMORY, metavar="MIB", help="(%(default)s)"
    )
    parser.add_argument(
        "--hang-timeout",
        type=int,
        default=parameters.PATIENCE,
        metavar="SECONDS",
        help="end a machine that gives no sign of life for so long; 0 is never (%(default)s)",
    )
    parser.add_argument(
        "--writable",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a folder whose files stay; may be given again",
    )
    parser.add_argument(
        "--terminal", action="store_true", help="give the command this terminal, where there is one"
    )
    parser.add_argument(
        "--console", action="store_true", help="show what the kernel prints on its console"
    )
    parser.add_argument("--save", action="store_true", help="only make the machine ready")
    parser.add_argument(
        "--wait-at",
        nargs=2,
        type=Path,
        metavar=("SOCKET", "LOG"),
        help="run what who comes to a socket brings; from then on errors go to a file",
    )
    parser.add_argument(
        "--or-here",
        action="store_true",
        help=f"when there is no machine, run the command here, the reason in ${NO_MACHINE}",
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND")
    chosen = parser.parse_args()
    if not (chosen.command or chosen.save or chosen.wait_at):
        parser.error("the following arguments are required: COMMAND")
    return chosen


if __name__ == "__main__":
    leave(main())
