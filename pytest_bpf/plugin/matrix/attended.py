"""Sessions that a person attends: pytest itself in the machine, joined to this terminal.

``--pdb``, ``--trace``, ``--bpf-shell``, ``--bpf-console`` and, at a terminal, ``-s`` need what
workers of pytest-xdist do not have: a terminal. So each kernel gets a session of its own, one after
another, and what these write below pytest's root directory stays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import termios
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.kernel.sys import libc
from pytest_bpf.plugin.matrix import hosts
from pytest_bpf.plugin.terminal import has_terminal, uncaptured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_bpf.plugin.matrix.choices import Choices, KernelChoice

GOOD = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
"""How a session ends that has not failed."""

ASKS = {"usepdb": "--pdb", "trace": "--trace", "bpf_shell": "--bpf-shell"}
"""Options that need a terminal, as pytest keeps them and as they are written."""

VARIABLE = "PYTEST_BPF_ATTENDED"
"""Tells pytest in the machine the name of its kernel, and those of the session."""

HERE = pytest.StashKey[dict[str, Any]]()
CHOICES: pytest.StashKey[Choices] = pytest.StashKey()


def asked(config: pytest.Config) -> str:
    """Return the option by which a person attends this session, or "" when nobody does.

    Raises `pytest.UsageError` where there is no terminal.
    """
    option = config.option
    if option.collectonly:
        return ""
    for name, written in ASKS.items():
        if getattr(option, name, False):
            if not has_terminal(config):
                raise pytest.UsageError(
                    f"{written} needs a terminal to ask at, and standard input is none"
                )
            return written
    if option.bpf_console:
        return "--bpf-console"
    live = option.capture == "no" and not getattr(option, "numprocesses", None)
    return "-s at a terminal" if live and has_terminal(config, 0, 1) else ""


def refuse_hosts(option: str, choices: Sequence[str]) -> None:
    """Raise `pytest.UsageError` for a kernel of another host, which has not this terminal."""
    for choice in choices:
        if choice.startswith(hosts.WAYS):
            raise pytest.UsageError(
                f"{option} gives the tests this terminal, and --bpf-kernel {choice} is another "
                "host: log in there, and run pytest there; or leave one of the two out"
            )


def here(config: pytest.Config) -> dict[str, Any]:
    """Return the kernel's name and those of the session, when this is pytest in such a machine."""
    if HERE not in config.stash:
        config.stash[HERE] = json.loads(os.environ.pop(VARIABLE, "{}"))
    return config.stash[HERE]


def refuse_breakpoints(config: pytest.Config, kernel: str) -> None:
    """Let ``breakpoint()`` in a worker say what it needs: there is no terminal to ask at."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail(
            f"breakpoint() needs a terminal: run this test alone, with --bpf-kernel {kernel} --pdb",
            pytrace=False,
        )

    before, sys.breakpointhook = sys.breakpointhook, refuse
    config.add_cleanup(lambda: setattr(sys, "breakpointhook", before))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the sessions; return the exit status: the first of a session that failed."""
    choices = config.stash.get(CHOICES, None)
    if choices is None:
        return None
    names = [kernel.name for kernel in choices.kernels]
    codes: list[int] = []
    with uncaptured(config), _terminal_kept():
        for absence in choices.absences:
            _say(f"not on {absence.choice}: {absence.reason}")
        for kernel in choices.kernels:
            code = _run(config, kernel, names)
            if code in GOOD or code == pytest.ExitCode.INTERRUPTED or not kernel.may_fail:
                codes.append(code)
            else:
                _say(f"may fail on {kernel.name}: the session ended with exit status {code}")
            if code == pytest.ExitCode.INTERRUPTED:
                break
    failed = [code for code in codes if code not in GOOD]
    return failed[0] if failed else min(codes, default=0)


def _say(sentence: str) -> None:
    print(f"bpf: {sentence}", flush=True)  # noqa: T201 (at the terminal, between sessions)


def _run(config: pytest.Config, kernel: KernelChoice, names: Sequence[str]) -> int:
    """Run pytest on a kernel, as it was called here."""
    console = ["--console"] if config.option.bpf_console else []
    machine = [*kernel.command, "--terminal", *console, "--"] if kernel.is_virtual else []
    said = json.dumps({"kernel": kernel.name, "kernels": list(names)})
    process = subprocess.Popen(
        [*machine, sys.executable, *_pytest(), *map(str, config.invocation_params.args)],
        env={**os.environ, VARIABLE: said},
        preexec_fn=partial(libc.death_signal(), signal.SIGTERM),  # noqa: PLW1509 (one system call)
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for that one
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _pytest() -> list[str]:
    """Return how Python runs pytest: by the script that was called, or as a module."""
    called = Path(sys.argv[0])
    if called.name in ("pytest", "py.test") and called.is_file():
        return [str(called.absolute())]
    return ["-m", "pytest"]


@contextmanager
def _terminal_kept() -> Iterator[None]:
    """Put the terminal back as it was, whatever becomes of those who change it."""
    if not os.isatty(0):
        yield
        return
    attributes = termios.tcgetattr(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, attributes)
