"""The folder of artifacts, written by the one process that hears of every test."""

from __future__ import annotations

import base64
import re
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.cache import digest
from pytest_bpf.plugin.artifacts.path import path_lines
from pytest_bpf.plugin.outcomes import FILES, STEPS, steps_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.plugin.artifacts.files import Files

NAME = "bpf-artifacts"

ATTRIBUTE = "bpf_artifacts"
"""The attribute of a report that has the files of its test, packed."""

CRASHED = "???"
"""The phase that xdist reports of a test whose worker crashed; the text has the console."""

LONGEST = 100
"""Characters of a folder's name."""

_FORBIDDEN = re.compile(r"[^\w.\-\[\]=,+@]+")


def pack(files: Files) -> dict[str, str]:
    """Return files as they travel with a report: text alone."""
    return {
        name: base64.b64encode(zlib.compress(content, 1)).decode("ascii")
        for name, content in files.items()
    }


def unpack(packed: Mapping[str, str]) -> Files:
    """Return what was packed."""
    return {name: zlib.decompress(base64.b64decode(text)) for name, text in packed.items()}


def folder_name(test: str) -> str:
    """Return the name of a test's folder.

    >>> folder_name("tests/test_a.py::test_b[6.1]")
    'tests-test_a.py-test_b[6.1]'
    """
    name = _FORBIDDEN.sub("-", test.replace("::", "-"))
    plain = test.replace("::", "-").replace("/", "-")
    if name == plain and len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{digest(test)[:8]}"


class Folder:
    """Writes the files of tests into a folder, until that fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        self.trouble = ""
        self.count = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a test's files, and take them out of its report."""
        packed: Any = report.__dict__.pop(ATTRIBUTE, None)
        files = unpack(packed) if packed else {}
        if report.failed and report.when == CRASHED:
            files = {"report.txt": report.longreprtext.encode(errors="replace")}
        if report.when == "teardown" and hasattr(report, STEPS):
            files["path.txt"] = "\n".join([*path_lines(steps_of(report)), ""]).encode()
        if files and not self.trouble:
            try:
                written = self.write(report.nodeid, files, more=set(files) == {"path.txt"})
                setattr(report, FILES, written)
            except OSError as error:
                self.trouble = error.strerror or str(error)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where they are, or once why they are not."""
        if self.trouble:
            terminalreporter.write_line(
                f"bpf: artifacts cannot be written to {self._path}: {self.trouble}", yellow=True
            )
        elif self.count:
            tests = "1 test" if self.count == 1 else f"{self.count} tests"
            terminalreporter.write_line(f"bpf: artifacts of {tests}: {self._path}")

    def write(self, test: str, files: Files, *, more: bool = False) -> tuple[str, ...]:
        """Write the files of one run of a test, or ``more`` of the last one; return their paths.

        Raises `OSError`.
        """
        run = self._runs[test] = self._runs.get(test, 0) + (not more or test not in self._runs)
        name = folder_name(test)
        if self._owners.setdefault(name, test) != test:
            name = f"{name}-{digest(test)[:8]}"
        place = self._path / (name + (f".{run}" if run > 1 else ""))
        if not more:
            shutil.rmtree(place, ignore_errors=True)
            self.count += 1
        written = []
        for name, content in files.items():
            path = place / Path("/", name).resolve().relative_to("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written.append(_from_here(path))
        return tuple(written)


def _from_here(path: Path) -> str:
    """Return a path from the current folder, where it is below that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def register(config: pytest.Config, path: Path) -> None:
    """Write the artifacts of this session's tests into a folder."""
    config.pluginmanager.register(Folder(path), NAME)
