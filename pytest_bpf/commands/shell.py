"""``pytest-bpf completion`` and ``pytest-bpf man``: what a shell and ``man`` know of it."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from pytest_bpf.commands.table import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

SHELLS = ("bash", "zsh", "tcsh")
NEEDED = {"completion": "shtab", "man": "argparse_manpage.manpage"}
"""What writes it, by the command."""


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line of ``pytest-bpf completion``."""
    result = argparse.ArgumentParser(
        "pytest-bpf completion",
        description="Print what makes a shell complete pytest-bpf's commands and options.",
        epilog='for this shell: eval "$(pytest-bpf completion bash)"',
    )
    result.add_argument("shell", choices=SHELLS)
    return result


def man_parser() -> argparse.ArgumentParser:
    """Return what reads the command line of ``pytest-bpf man``."""
    return argparse.ArgumentParser(
        "pytest-bpf man",
        description="Print the man page.",
        epilog="to read it: pytest-bpf man | man -l -",
    )


def main(arguments: Sequence[str]) -> int:
    """Print a shell's completion; return the exit status."""
    options = parser().parse_args(arguments)
    if shtab := _needed("completion"):
        print(shtab.complete(whole_parser(), shell=options.shell))
    return 0 if shtab else 1


def print_man_page(arguments: Sequence[str]) -> int:
    """Print the man page; return the exit status."""
    man_parser().parse_args(arguments)
    if manpage := _needed("man"):
        print(manpage.Manpage(whole_parser()))
    return 0 if manpage else 1


def _needed(command: str) -> ModuleType | None:
    try:
        return import_module(NEEDED[command])
    except ImportError as error:
        print(
            f"pytest-bpf {command}: {error.name} cannot be imported; "
            "pip install 'pytest-bpf[shell]'",
            file=sys.stderr,
        )
        return None


class WholeParser(argparse.ArgumentParser):
    """A parser with what argparse-manpage writes beside the command's name."""

    man_short_description = "tests of BPF programs: what is done outside of a test"


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser with all commands, made of those that the commands have."""
    result: argparse.ArgumentParser = WholeParser(
        "pytest-bpf", description="What is done for tests outside of a test."
    )
    commands = result.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = command.parser()
        commands.add_parser(
            name,
            parents=[own],
            add_help=False,
            help=command.does,
            description=own.description,
            epilog=own.epilog,
            formatter_class=own.formatter_class,
        )
    return result
