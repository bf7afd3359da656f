"""``pytest-bpf vmlinux``: every type of a kernel as one C header."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.btf import vmlinux_h

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf vmlinux", description="Write every type of a kernel as one C header."
    )
    result.add_argument("--output", "-o", default="vmlinux.h", type=Path, help="the header")
    result.add_argument("--btf", default=vmlinux_h.RUNNING, type=Path, help="the kernel's BTF")
    return result


def main(arguments: Sequence[str]) -> int:
    """Write ``vmlinux.h``; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        vmlinux_h.write(options.btf, options.output)
    except (BpfError, OSError) as error:
        print(f"pytest-bpf vmlinux: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.output}")
    return 0
