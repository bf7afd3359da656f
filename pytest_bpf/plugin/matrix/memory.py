"""Memory by need: a test that does not fit its machine is run again, on a larger one.

What is missing is known in the machine, and which machine comes next on the other side. So the
worker says what is missing on its standard error, which is kept, and ends; its replacement has the
memory. A worker whose kernel has killed it for want of memory ends by itself.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import BpfError
from pytest_bpf.plugin.terminal import uncaptured
from pytest_bpf.vm import qemu

if TYPE_CHECKING:
    from execnet import XSpec

    from pytest_bpf.plugin.matrix.choices import KernelChoice

WHOLE = ("loadfile", "loadgroup", "loadscope")
"""The ways of ``--dist`` that do not give a single test out again."""

STEP = 512
"""The memory of larger machines is a multiple of this, in MiB: each size is saved once."""

SPARE = 1.5
"""A larger machine gets more than what is missing: of a third its kernel makes use itself."""

WORD = "--memory="

MISSING = re.compile(r"pytest-bpf: (?P<missing>\d+) MiB of memory are missing: (?P<why>.*)")
FULL = re.compile(r"pytest-bpf: (?P<why>the machine's memory of \d+ MiB is full: .*)")


def check(config: pytest.Config, most: int) -> None:
    """Raise `pytest.UsageError` where no test could be run again on a larger machine."""
    if most and config.option.dist in WHOLE:
        raise pytest.UsageError(
            "--bpf-memory-max goes with --dist load and worksteal, which give a single test out "
            f"again, not with {config.option.dist}"
        )


class Need:
    """In a machine: ends the worker of a test that lacks memory, if no more than ``room`` MiB."""

    def __init__(self, room: int) -> None:
        self._room = room

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Leave, in place of a report."""
        error = call.excinfo.value if call.excinfo else None
        if not isinstance(error, BpfError) or getattr(error, "errno", 0) != errno.ENOMEM:
            return
        missing = -(-getattr(error, "missing", 0) >> 20)
        if missing > self._room or item.get_closest_marker("xfail"):
            return
        sentence = str(error).partition("\n")[0]
        with uncaptured(item.config):
            os.write(2, f"pytest-bpf: {missing} MiB of memory are missing: {sentence}\n".encode())
            os._exit(1)


@dataclass
class LargerMachines:
    """On the other side: the ``most`` MiB that a machine may get, and which ones got more."""

    most: int
    sentences: list[str] = field(default_factory=list)

    def room(self, spec: XSpec) -> int:
        """Return how many MiB more the machine of a worker may get."""
        return max(0, self.most - _memory(spec))

    def larger(self, spec: XSpec, kernel: KernelChoice, words: str) -> KernelChoice | None:
        """Return the kernel with a larger machine, when its last ``words`` ask for one.

        None when it may get no more.
        """
        match = MISSING.search(words) or FULL.search(words)
        before = _memory(spec)
        if match is None or before >= self.most:
            return None
        missing = int(match.groupdict().get("missing") or 0) or before
        size = before + -(-int(missing * SPARE) // STEP) * STEP
        size = min(self.most, size)
        self.sentences.append(
            f"a machine of {kernel.place} with {size} MiB took the place of one with "
            f"{before}: {match['why']}"
        )
        return replace(kernel, machine=(*kernel.machine, f"{WORD}{size}"))


def _memory(spec: XSpec) -> int:
    """Return the MiB of a worker's machine, as its command has them; the last word counts."""
    words = [w for w in shlex.split(str(spec.python)) if w.startswith(WORD)]
    return int(words[-1].removeprefix(WORD)) if words else qemu.MEMORY
