"""One line about the environment: what is there, and what is lacking."""

from __future__ import annotations

import pytest_bpf
from pytest_bpf.compile import find
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.privilege import privilege
from pytest_bpf.kernel.running import release
from pytest_bpf.kernel.vmlinux_h import RUNNING


def header(compiler: str = "") -> str:
    """Return version, kernel, BTF, compiler and libbpf, and what this environment lacks."""
    lacks = []
    try:
        with_libbpf = f"libbpf {libbpf.version()}"
    except UnavailableError:
        with_libbpf = ""
        lacks.append("libbpf")
    try:
        with_compiler = str(find(compiler or None))
    except UnavailableError:
        with_compiler = ""
        lacks.append("a compiler")
    if not RUNNING.exists():
        lacks.append("BTF")
    if with_libbpf and privilege():
        lacks.append("privilege")
    has = [
        f"kernel {release()}",
        "BTF" if "BTF" not in lacks else "",
        with_libbpf,
        with_compiler,
        f"lacks {', '.join(lacks)}" if lacks else "",
    ]
    return f"bpf: pytest-bpf {pytest_bpf.__version__}, {', '.join(filter(None, has))}"
