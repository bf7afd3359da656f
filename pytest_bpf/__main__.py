"""The command ``pytest-bpf``: what is done outside of a test."""

from __future__ import annotations

import os
import signal
import sys

from pytest_bpf import __version__
from pytest_bpf.commands.table import COMMANDS, Command
from pytest_bpf.errors import near_matches


def main() -> int:
    """Run the subcommand of the command line; return its exit status."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        return _run(COMMANDS[name], arguments)
    if name in ("-h", "--help"):
        print("usage: pytest-bpf COMMAND ...\n")  # noqa: T201 (a command)
        for command, row in COMMANDS.items():
            print(f"  {command:18}{row.does}")  # noqa: T201
        print("\npytest-bpf COMMAND --help says more.")  # noqa: T201
        return 0 if sys.argv[1:] else 2
    if name == "--version":
        print(f"pytest-bpf {__version__}")  # noqa: T201
        return 0
    near = near_matches(name, COMMANDS)
    print(f"pytest-bpf: there is no command {name!r}{near}", file=sys.stderr)  # noqa: T201
    return 2


def _run(command: Command, arguments: list[str]) -> int:
    """Run a subcommand; whoever reads its output may stop when there is enough (``| head``)."""
    try:
        status = command.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
