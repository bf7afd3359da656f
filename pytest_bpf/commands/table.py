"""The table of commands: each is imported when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


@dataclass(frozen=True)
class Command:
    """A command: its module, what it does, and the names of its functions there."""

    module: str
    does: str
    main: str = "main"
    own_parser: str = "parser"

    def run(self, arguments: Sequence[str]) -> int:
        """Run it with its own arguments; return its exit status."""
        status: int = getattr(import_module(self.module), self.main)(arguments)
        return status

    def parser(self) -> argparse.ArgumentParser:
        """Return what reads its command line."""
        parser: argparse.ArgumentParser = getattr(import_module(self.module), self.own_parser)()
        return parser


COMMANDS = {
    "init": Command("pytest_bpf.commands.init", "write tests for the BPF sources of a repository"),
    "new": Command("pytest_bpf.commands.new", "write a BPF program and its test, to start from"),
    "doctor": Command(
        "pytest_bpf.commands.doctor", "say what this machine can do, and what is missing"
    ),
    "lint": Command(
        "pytest_bpf.commands.lint", "find what the guide advises against, without loading"
    ),
    "kernels": Command("pytest_bpf.commands.kernels", "list the kernels that tests can run on"),
    "mutate": Command(
        "pytest_bpf.commands.mutate", "break programs on purpose: do the tests see it?"
    ),
    "regression": Command("pytest_bpf.commands.regression", "make tests of inputs that failed"),
    "import": Command("pytest_bpf.commands.import_veristat", "make a test of veristat's figures"),
    "vmlinux": Command("pytest_bpf.commands.vmlinux", "write vmlinux.h"),
    "compile-commands": Command(
        "pytest_bpf.commands.compile_commands",
        "write how the BPF sources are compiled, for editors",
    ),
    "top": Command("pytest_bpf.reports.top", "show what the machine's programs and maps do, live"),
    "report": Command(
        "pytest_bpf.reports.merging", "merge JSON reports, and write one of another format"
    ),
    "compare": Command("pytest_bpf.reports.comparison", "compare what two runs measured"),
    "completion": Command("pytest_bpf.commands.shell", "print what makes a shell complete these"),
    "man": Command(
        "pytest_bpf.commands.shell", "print the man page", "print_man_page", "man_parser"
    ),
}
"""By name, in the order in which they are shown."""
