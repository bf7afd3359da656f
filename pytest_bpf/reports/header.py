"""One line about the environment: what is there, and what is lacking."""

from __future__ import annotations

import pytest_bpf
from pytest_bpf.compile import find
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import features, libbpf


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
    if not features.has_btf():
        lacks.append("BTF")
    if with_libbpf and features.privilege():
        lacks.append("privilege")
    has = [
        f"kernel {features.release()}",
        "BTF" if "BTF" not in lacks else "",
        with_libbpf,
        with_compiler,
        f"lacks {', '.join(lacks)}" if lacks else "",
    ]
    return f"bpf: pytest-bpf {pytest_bpf.__version__}, {', '.join(filter(None, has))}"
