"""Where figures compare with each other."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys.release import release

if TYPE_CHECKING:
    from pytest_bpf.costs.figures.figure import Instrument


@dataclass(frozen=True, order=True)
class Environment:
    """What two figures must have in common to be compared.

    ``instrument`` is theirs. ``machine`` is what else they depend on: nothing for
    ``verifier`` and ``exact``, the number of CPUs for ``kernel``, the model too for ``clock``.
    """

    kernel: str
    compiler: str
    architecture: str
    instrument: str
    machine: str = ""

    def __str__(self) -> str:
        compiler = f", {self.compiler}" if self.compiler else ""
        machine = f", {self.machine}" if self.machine else ""
        return f"kernel {self.kernel}, {self.architecture}{compiler}{machine}"


def here(instrument: Instrument, compiler: str) -> Environment:
    """Return where figures of ``instrument`` are measured in this process."""
    cpus = f"{os.cpu_count()} CPUs"
    machine = {"kernel": cpus, "clock": f"{_processor()}, {cpus}"}.get(instrument, "")
    return Environment(release(), compiler, platform.machine(), instrument, machine)


@cache
def _processor() -> str:
    """Return the model of the CPUs, as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "CPU part", "uarch"):
            return " ".join(value.split())
    return platform.machine()
