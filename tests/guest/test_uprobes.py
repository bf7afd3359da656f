"""A uprobe in a library sees the test's own process, and others that use the library."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_bpf.loader import Loader


@pytest.mark.bpf_requires(attach="uprobe")
def test_a_function_of_libc_is_seen_in_all_processes(bpf: Loader) -> None:
    mapped = Path("/proc/self/maps").read_text().split()
    libc = next(word for word in mapped if Path(word).name.startswith("libc.so"))
    obj = bpf.load("uprobes.bpf.c")
    with obj.programs["called"].attach(binary=libc, function="getppid"):
        for _ in range(3):
            ctypes.CDLL(None).getppid()
        code = "import os; os.getppid(); os.getppid(); print(os.getpid())"
        other = subprocess.check_output([sys.executable, "-c", code], text=True)
    calls = dict(obj.maps["calls"].items())
    assert calls[os.getpid()] == 3
    assert calls[int(other)] == 2
