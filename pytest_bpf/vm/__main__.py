"""``python -m pytest_bpf.vm --kernel debian -- COMMAND``: a command on another kernel."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from pytest_bpf.errors import BpfError
from pytest_bpf.vm import kernels, qemu, run


def main() -> int:
    """Run the command line; return its command's exit status, or 125 when there was no machine."""
    parser = argparse.ArgumentParser(prog="python -m pytest_bpf.vm", description=__doc__)
    parser.add_argument(
        "--kernel", required=True, help="'debian', a version, a path to an image, or 'host'"
    )
    parser.add_argument("--exact", action="store_true", help="time is a count of instructions")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB")
    parser.add_argument(
        "--writable",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a folder whose files stay; may be given again",
    )
    parser.add_argument("--save", action="store_true", help="only make the machine ready")
    parser.add_argument("command", nargs="*", metavar="COMMAND")
    chosen = parser.parse_args()
    if not chosen.command and not chosen.save:
        parser.error("the following arguments are required: COMMAND")
    try:
        kernel = kernels.find(chosen.kernel)
        if kernel is None and chosen.save:
            return 0
        if kernel is None:
            os.execvp(chosen.command[0], chosen.command)  # noqa: S606 (the whole point)
        machine = qemu.Machine(kernel, chosen.exact, chosen.cpus, chosen.memory)
        if chosen.save:
            return run.save(machine)
        return run.run(machine, chosen.command, chosen.writable)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BpfError as error:
        print(f"pytest-bpf: {error}", file=sys.stderr)  # noqa: T201 (a command)
        return 125


if __name__ == "__main__":
    sys.exit(main())
