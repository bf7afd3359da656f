"""``python -m pytest_bpf.bcc``: download the headers of the kernel 'debian', for its machines."""

from __future__ import annotations

import sys

from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import debian

if __name__ == "__main__":
    try:
        print(debian.headers())  # noqa: T201 (a command's answer)
    except BpfError as error:
        sys.exit(f"pytest-bpf: {error}")
