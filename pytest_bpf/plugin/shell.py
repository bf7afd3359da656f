"""``--bpf-shell``: a shell where a test stopped, before anything of its state is taken down."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.netns.namespace import Namespace
from pytest_bpf.netns.places import Places
from pytest_bpf.plugin.stash import LOADER
from pytest_bpf.plugin.terminal import has_terminal, uncaptured

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Refuse what has no terminal."""
    if not has_terminal(config):
        raise pytest.UsageError("--bpf-shell needs a terminal, and standard input is none")
    if getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--bpf-shell is for one process that has a terminal: leave out -n")


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, report: pytest.TestReport
) -> None:
    """Run a shell, and go on when it ends."""
    with uncaptured(node.config):
        print(f"\n{report.longreprtext}")  # noqa: T201 (for the person at the terminal)
        for title, text in report.sections:
            if node.config.option.showcapture in ("all", title.rpartition(" ")[2]):
                print(f"{title}:\n{text.rstrip()}")  # noqa: T201
        print(f"bpf: {node.nodeid} stopped here; exit goes on")  # noqa: T201
        for line in _state(node):
            print(f"  {line}")  # noqa: T201
        sys.stdout.flush()
        shell = os.environ.get("SHELL") or "/bin/sh"
        subprocess.run([shell], check=False)


def _state(node: pytest.Item | pytest.Collector) -> Iterator[str]:
    """Say which programs and maps the test has loaded, and how to enter its namespaces."""
    for part in node.listchain():
        if LOADER in part.stash:
            for loaded in part.stash[LOADER].objects:
                for kind in ("programs", "maps"):
                    for name, one in getattr(loaded, kind).items():
                        yield f"{kind[:-1]} {name}: id {one.id}"
    for namespace in _namespaces(getattr(node, "funcargs", {}).values()):
        yield f"{namespace.name}: nsenter --net=/proc/{os.getpid()}/fd/{namespace.fileno()}"


def _namespaces(values: Any) -> Iterator[Namespace]:
    for value in values:
        if isinstance(value, Namespace):
            yield value
        elif isinstance(value, Places):
            yield from value.namespaces
        elif isinstance(value, tuple):
            yield from _namespaces(value)
