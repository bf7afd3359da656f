"""``pytest-bpf kernels features KERNEL``: which kinds of maps and programs a kernel has."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernels import lookup
from pytest_bpf.kinds import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_bpf.kernel.features import Probe


def show(choice: str) -> int:
    """Print the table of a kernel, in a machine unless it is the running one; return the status."""
    try:
        elsewhere = lookup.find(choice)
    except BpfError as error:
        print(f"pytest-bpf kernels features: {error}", file=sys.stderr)
        return 1
    if elsewhere is not None:
        own = [sys.executable, "-m", "pytest_bpf", "kernels", "features", "host"]
        machine = [sys.executable, "-m", "pytest_bpf.vm", "--kernel", choice, "--", *own]
        return subprocess.run(machine, check=False).returncode
    if lacks := features.privilege():
        print(f"pytest-bpf kernels features: {lacks}", file=sys.stderr)
        return 1
    print(f"{features.release()}, {os.uname().machine}")
    tables: tuple[tuple[str, Iterable[str], Callable[[str], Probe], dict[str, str]], ...] = (
        ("map", enums.MAP_TYPES, features.map_type, versions.MAP_KINDS),
        ("program", enums.PROGRAM_TYPES, features.program_type, versions.PROGRAM_KINDS),
        ("attach", features.ATTACH_KINDS, features.attach, {}),
    )
    for kind, names, probe, first in tables:
        for name in names:
            if name == "unspec":
                continue
            with suppress(UnavailableError):
                answer = probe(name)
                line = f"{kind:8} {name:28} {'yes' if answer else 'no':4} {first.get(name, ''):5}"
                print(f"{line} {answer.reason}".rstrip())
    return 0
