"""Load small programs written by hand, without libbpf's objects."""

from __future__ import annotations

import ctypes
import errno as errnos
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.kernel import btf
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.programs import assembly
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.libbpf_options import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Iterator


def calling(helper: int) -> bytes:
    """Return the program that calls a helper by number and returns."""
    return assembly.call(helper) + assembly.leave()


BPF_F_SLEEPABLE = 1 << 4

LOG_SIZE = 1 << 16

MODULES = Path("/sys/kernel/btf")
"""The BTF of the kernel, ``vmlinux``, and of each module that is loaded."""


@dataclass(frozen=True)
class Variant:
    """What a program type needs besides its number to be loaded.

    ``program_fd`` is the program that it attaches to: ``attach_btf_id`` is then a function of that.
    """

    attach_type: int = 0
    attach_btf_id: int = 0
    flags: int = 0
    program_fd: int = 0


@dataclass(frozen=True)
class Verdict:
    """The kernel's answer to a program: ``errno`` (0: loaded) and the verifier's ``log``."""

    errno: int
    log: str


def judge(
    kind: str, variant: Variant, instructions: bytes = assembly.RETURN_0, log_level: int = 1
) -> Verdict:
    """Load a program of type ``kind``, drop it at once, and return what the kernel said.

    A kernel that does not have the type, or does not let this process load it, refuses before the
    verifier has written anything.
    """
    log = ctypes.create_string_buffer(LOG_SIZE)
    try:
        os.close(_load(kind, variant, instructions, log, log_level))
    except OSError as error:
        return Verdict(error.errno or errnos.EINVAL, log.value.decode(errors="replace"))
    return Verdict(0, log.value.decode(errors="replace"))


@contextmanager
def program(
    kind: str,
    variant: Variant | None = None,
    instructions: bytes = assembly.RETURN_0,
    name: str = "probe",
) -> Iterator[int]:
    """Load a program of type ``kind``, called ``name``; yield its descriptor.

    Raises `OSError` with the kernel's code.
    """
    with closing(_load(kind, variant or Variant(), instructions, name=name)) as fd:
        yield fd


def _load(
    kind: str,
    variant: Variant,
    instructions: bytes,
    log: ctypes.Array[ctypes.c_char] | None = None,
    log_level: int = 0,
    *,
    name: str = "probe",
) -> int:
    options = LoadOptions(
        expected_attach_type=variant.attach_type,
        attach_btf_id=variant.attach_btf_id,
        attach_prog_fd=variant.program_fd,
        prog_flags=variant.flags,
        log_level=log_level if log else 0,
        log_size=len(log) if log else 0,
        log_buf=ctypes.addressof(log) if log else None,
    )
    number, count = enums.program_type_id(kind), len(instructions) // 8
    where = ctypes.byref(options)
    words = number, name.encode(), b"GPL", instructions, count, where
    loaded: int = libbpf.call("bpf_prog_load", *words)
    return loaded


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Yield a descriptor and close it."""
    try:
        yield fd
    finally:
        os.close(fd)


def btf_id(name: str, kind: btf.Kind) -> int:
    """Return the id of a named type in the running kernel's BTF, or 0 when it has none.

    Raises `UnavailableError` when the kernel has no BTF.
    """
    find = libbpf.function("btf__find_by_name_kind")
    pointer = btf.vmlinux()._pointer  # noqa: SLF001 (the search by name of Btf lists every name on a miss)
    type_id: int = find(pointer, name.encode(), kind)
    return max(0, type_id)


def in_a_module(name: str, kind: btf.Kind) -> bool:
    """Say whether the BTF of a module that is loaded has a type of this name."""
    find, free = libbpf.function("btf__find_by_name_kind"), libbpf.function("btf__free")
    kernel = btf.vmlinux()._pointer  # noqa: SLF001 (as in `btf_id`)
    for path in MODULES.iterdir():
        if path.name == "vmlinux":
            continue
        with suppress(OSError):  # it is unloaded just now
            pointer = libbpf.call("btf__load_module_btf", path.name.encode(), kernel)
            try:
                if find(pointer, name.encode(), kind) > 0:
                    return True
            finally:
                free(pointer)
    return False
