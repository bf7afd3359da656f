"""Sessions of pytest by a process that has all imports behind it, and forks for each of them.

A session costs its tests so, and not a second of imports before them. The process that forks has
run one test of its own, and no other; modules of the tests' folder each session imports for itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TEST = """
def test_warm(bpf):
    bpf.create_map("array", key="u32", value="u64", max_entries=1)
    bpf.load(%r)
"""
"""The session that imports everything: it compiles, loads and may fail."""

SERVER = "pytest_bpf.plugin.warm"
"""The module that forks; see there."""

PATIENCE = 60.0
"""Seconds until a process that was asked to end is killed."""


@dataclass(frozen=True)
class Session:
    """How a session ended, and what it wrote; ``status`` is None for one that took too long."""

    status: int | None
    output: str


class WarmPytest:
    """Runs one session at a time, each in a process of its own; `close` ends it.

    ``folder`` is a place for the files of a session, the same for each: what the sources there
    begin with is parsed once.
    """

    def __init__(self, source: Path, *, lazy: bool = False) -> None:
        """Prepare sessions that load such a source.

        ``lazy`` leaves all imports of tests to their sessions: some packages mind what was set
        before.
        """
        self._place = tempfile.TemporaryDirectory(prefix="warm-pytest-")
        self.folder = Path(self._place.name, "files")
        folder = Path(self._place.name, "warm")
        folder.mkdir()
        (folder / "test_warm.py").write_text(TEST % str(source), "utf-8")
        self._process = subprocess.Popen(
            (sys.executable, "-m", SERVER, str(folder), *(["--lazy"] if lazy else [])),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, folder: Path, arguments: Sequence[str], seconds: float) -> Session:
        """Run pytest in a folder; raises `ValueError` when the process that forks has gone."""
        output = Path(self._place.name, "output")
        asked = {"folder": str(folder), "arguments": [*arguments], "output": str(output)}
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({**asked, "seconds": seconds}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise ValueError(f"the process that runs pytest ended with status {process.wait()}")
        return Session(json.loads(answer), output.read_text("utf-8", "replace"))

    def close(self) -> None:
        """End the process, and remove its files."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._place.cleanup()
