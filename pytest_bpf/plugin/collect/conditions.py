"""What an annotated program needs of this machine."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.programs.load import program
from pytest_bpf.kernel.sys import capabilities
from pytest_bpf.kernel.sys.info import ProgramInfo, read_info
from pytest_bpf.kernel.sys.release import config
from pytest_bpf.plugin.collect.expectation import LOAD_MODES

if TYPE_CHECKING:
    from pytest_bpf.plugin.collect.expectation import Annotations


def check(notes: Annotations, *, privileged: bool) -> None:
    """Raise `UnavailableError` when this machine is not one that the annotations ask for."""
    if notes.architectures and platform.machine() not in notes.architectures:
        raise UnavailableError(f"is for {' or '.join(sorted(notes.architectures))}")
    if notes.load_modes and not any(LOAD_MODES[mode] is has_jit() for mode in notes.load_modes):
        state = "has" if has_jit() else "has no"
        raise UnavailableError(
            f"is for load_mode={' or '.join(sorted(notes.load_modes))}, and this kernel {state} JIT"
        )
    for text in notes.kconfig:
        _check_config(text)
    if not privileged:
        _check_unprivileged()


def _check_config(text: str) -> None:
    name, _, value = text.partition("=")
    here = config(name)
    if here is None:
        raise UnavailableError(f"needs {text}, and this kernel's configuration cannot be read")
    if here != value if value else here == "n":
        raise UnavailableError(f"needs {text}; this kernel has {name}={here}")


def _check_unprivileged() -> None:
    if capabilities.unprivileged_bpf_disabled():
        raise UnavailableError(
            "this kernel lets nobody without privilege use bpf(2) "
            "(kernel.unprivileged_bpf_disabled): run it with --bpf-kernel"
        )
    if "mitigations=off" in Path("/proc/cmdline").read_text(encoding="utf-8").split():
        raise UnavailableError(
            "with mitigations=off the verifier does not treat programs without privilege otherwise"
        )


@cache
def has_jit() -> bool:
    """Say whether this kernel compiles programs to machine code; raises `OSError`."""
    with program("socket_filter") as fd:
        return bool(read_info(fd, ProgramInfo).jited_prog_len)
