"""The command ``pytest-bpf``: what is done outside of a test."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "top": ("pytest_bpf.reports.top", "show what the machine's programs and maps do, live"),
    "compare": ("pytest_bpf.reports.comparison", "compare what two runs measured"),
}
"""By name, the module whose ``main(arguments)`` returns the exit status, and what it does."""


def main() -> int:
    """Run the subcommand of the command line; return its exit status."""
    name, *arguments = sys.argv[1:] or [""]
    if name in COMMANDS:
        status: int = import_module(COMMANDS[name][0]).main(arguments)
        return status
    print("usage: pytest-bpf COMMAND ...\n")  # noqa: T201 (a command)
    for known, (_, does) in COMMANDS.items():
        print(f"  {known:10}{does}")  # noqa: T201
    return 0 if name in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
