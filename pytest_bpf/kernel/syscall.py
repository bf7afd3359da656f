"""System calls that neither Python nor libbpf has."""

from __future__ import annotations

import ctypes
import os
from functools import cache


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, what: str, *arguments: object) -> int:
    """Make a system call by its ``number``; return what it returns.

    ``what`` is its name, for the `OSError` with the kernel's code that a refusal is.
    """
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result
