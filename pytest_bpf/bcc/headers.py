"""The kernel headers that BCC compiles with."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernels import debian

DEBIAN = "debian"
VARIABLE = "BCC_KERNEL_SOURCE"
"""The variable by which BCC is told a folder of headers."""

KHEADERS = Path("/sys/kernel/kheaders.tar.xz")


def environment(named: str | os.PathLike[str] | None) -> dict[str, str]:
    """Return what BCC's environment needs to find headers: those named, or the running kernel's.

    ``named`` is a folder, or ``"debian"``: the distribution's, downloaded once. Without it: the
    variable ``BCC_KERNEL_SOURCE``, ``/lib/modules``, the kernel's own archive, and those of a
    kernel of `pytest_bpf.vm`. Raises `UnavailableError` when there are none.
    """
    if named == DEBIAN:
        return {VARIABLE: str(debian.headers())}
    if named is not None or VARIABLE in os.environ:
        folder = Path(named if named is not None else os.environ[VARIABLE])
        if not (folder / "include/linux/kconfig.h").exists():
            raise UnavailableError(f"{folder} has no kernel headers: no include/linux/kconfig.h")
        return {VARIABLE: str(folder.absolute())}
    release = platform.release()
    modules = Path("/lib/modules", release)
    if (modules / "build/include").exists() or (modules / "source").exists() or KHEADERS.exists():
        return {}
    unpacked = debian.unpacked_headers(release)
    if unpacked is not None:
        return {VARIABLE: str(unpacked)}
    raise UnavailableError(
        f"BCC needs the headers of kernel {release}, and there are none: install "
        f"linux-headers-{release}, name a folder by headers= or {VARIABLE}, or pass "
        "headers='debian' for the distribution's, whose structures may not be this kernel's; for "
        "a machine of that kernel run 'python -m pytest_bpf.bcc' on its host once"
    )


def usable() -> str | None:
    """Return what to pass as ``headers``: None where the kernel has some, else ``"debian"``."""
    try:
        environment(None)
    except UnavailableError:
        return DEBIAN
    return None
