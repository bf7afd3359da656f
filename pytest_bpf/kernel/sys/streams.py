"""The streams that programs write to: ``bpf_stream_vprintk()``, and the kernel's own reports."""

from __future__ import annotations

import ctypes
import errno as errnos
import struct

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.sys.bpf_syscall import bpf

STDOUT, STDERR = 1, 2
PROG_STREAM_READ_BY_FD = 37
CHUNK = 1 << 16


def read(fd: int, stream: int) -> str:
    """Return what a program wrote to a stream since it was last read.

    Raises `UnavailableError` on kernels before 6.17, which have no streams, and `OSError`.
    """
    text = b""
    buffer = ctypes.create_string_buffer(CHUNK)
    while True:
        try:
            size = bpf(
                PROG_STREAM_READ_BY_FD,
                struct.pack("=QIII", ctypes.addressof(buffer), CHUNK, stream, fd) + bytes(4),
            )
        except OSError as error:
            if error.errno == errnos.EINVAL:
                raise UnavailableError(
                    "this kernel has no streams of programs (they came with 6.17)"
                ) from None
            raise
        text += buffer.raw[:size]
        if size < CHUNK:
            return text.decode(errors="replace")
