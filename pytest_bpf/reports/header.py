"""One line about the environment: what is there, and what is lacking."""

from __future__ import annotations

from importlib.metadata import version

from pytest_bpf.compile import find_compiler
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.btf.vmlinux_h import RUNNING
from pytest_bpf.kernel.features.privilege import privilege
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.release import release


def header(compiler: str = "") -> str:
    """Return version, kernel, BTF, compiler and libbpf, and what this environment lacks."""
    lacks = []
    try:
        with_libbpf = f"libbpf {libbpf.version()}"
    except UnavailableError:
        with_libbpf = ""
        lacks.append("libbpf")
    try:
        with_compiler = str(find_compiler(compiler or None))
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
    return f"bpf: pytest-bpf {version('pytest-bpf')}, {', '.join(filter(None, has))}"
