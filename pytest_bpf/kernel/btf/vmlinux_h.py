"""``vmlinux.h``: every type of a kernel as one C header, written by libbpf from its BTF."""

from __future__ import annotations

import ctypes
import hashlib
import os
from ctypes import c_void_p
from functools import lru_cache
from pathlib import Path

from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.libc import library

RUNNING = Path("/sys/kernel/btf/vmlinux")
"""The BTF of the running kernel."""

NOTES = Path("/sys/kernel/notes")
"""The ELF notes of the running kernel: its build id is one of them."""

HEAD = b"""\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

/* The types of one kernel, from its BTF. Reading a field of any of them is relocated (CO-RE). */

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif

"""

TAIL = b"""
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif
"""


def write(btf_path: Path, to: Path) -> None:
    """Write the types in ``btf_path`` (raw BTF, not split) to the header ``to``, some 0.1 s.

    Raises `UnavailableError` when there is no such BTF or libbpf is too old for it, and `OSError`
    when ``to`` cannot be written; then ``to`` does not exist.
    """
    btf = _parse(btf_path)
    try:
        with to.open("wb") as header:
            header.write(HEAD)
            header.flush()
            _dump(btf, header.fileno())
            header.write(TAIL)
    except BaseException:
        to.unlink(missing_ok=True)
        raise
    finally:
        libbpf.call("btf__free", btf)


def identity(btf_path: Path) -> str:
    """Return a text that differs whenever the BTF does; for the running kernel at no cost.

    The running kernel is known by its notes (the build id), release, version and size of its BTF,
    any other by its content. Raises `UnavailableError` when there is no such BTF.
    """
    try:
        if btf_path == RUNNING and (identity_of_running := _running(btf_path)):
            return identity_of_running
        status = btf_path.stat()
        return _content(btf_path, (status.st_size, status.st_mtime_ns, status.st_ino))
    except OSError as error:
        raise _no_btf(btf_path, error) from None


@lru_cache(maxsize=1)
def _running(btf_path: Path) -> str:
    """Return the identity of the running kernel, "" when it has no notes; raise `OSError`."""
    if not NOTES.exists():
        return ""
    kernel = os.uname()
    parts = f"{kernel.release}\0{kernel.version}\0{btf_path.stat().st_size}\0".encode()
    return hashlib.sha256(parts + NOTES.read_bytes()).hexdigest()


@lru_cache(maxsize=8)
def _content(btf_path: Path, _status: tuple[int, int, int]) -> str:
    return hashlib.sha256(btf_path.read_bytes()).hexdigest()


def _parse(btf_path: Path) -> int:
    with libbpf.messages() as messages:
        try:
            btf: int = libbpf.call("btf__parse_raw", os.fsencode(btf_path))
        except OSError as error:
            if not os.access(btf_path, os.R_OK):
                raise _no_btf(btf_path, error) from None
            reason = "; ".join(messages) or error.strerror
            raise UnavailableError(
                f"libbpf {libbpf.version()} cannot read {btf_path} as a kernel's BTF ({reason}); "
                "a newer libbpf may, if the file is a whole kernel's and not a module's"
            ) from None
    return btf


def _no_btf(btf_path: Path, error: OSError) -> UnavailableError:
    advice = "a kernel built with CONFIG_DEBUG_INFO_BTF=y has it" if btf_path == RUNNING else ""
    advice = advice or "give the raw BTF of a kernel"
    return UnavailableError(
        f"no BTF at {btf_path} to make vmlinux.h of ({error.strerror}); {advice}"
    )


def _dump(btf: int, descriptor: int) -> None:
    """Append every type of ``btf`` to the file ``descriptor``, in an order that C accepts.

    libbpf prints by a callback ``(void *context, const char *format, va_list)``, which is what
    vfprintf is for a ``FILE *``: all printing is done by the C library.
    """
    libc = library()
    stream = libc.fdopen(os.dup(descriptor), b"ab")
    if not stream:
        raise BpfError(f"fdopen: {os.strerror(ctypes.get_errno())}")
    try:
        dump = libbpf.call("btf_dump__new", btf, ctypes.cast(libc.vfprintf, c_void_p), stream, None)
        try:
            dump_type = libbpf.function("btf_dump__dump_type")
            for type_id in range(1, libbpf.call("btf__type_cnt", btf)):
                if (result := dump_type(dump, type_id)) < 0:
                    raise BpfError(f"libbpf cannot write type {type_id}: {libbpf.reason(-result)}")
        finally:
            libbpf.call("btf_dump__free", dump)
        failed = libc.ferror(stream)
    finally:
        failed = libc.fclose(stream) or failed
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "vmlinux.h")
