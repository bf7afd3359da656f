"""What probes are made of: an answer, the smallest program there is, and places to try it."""

from __future__ import annotations

import ctypes
import errno as errnos
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import assembly, btf, enums, libbpf
from pytest_bpf.kernel.libbpf_options import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Probe:
    """What a probe found: true when the feature is there.

    Otherwise ``reason`` says why it is not, or why that cannot be found out (no privilege);
    it is empty when the kernel simply does not have it.
    """

    available: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.available


AVAILABLE = Probe(available=True)


def unavailable(reason: str = "") -> Probe:
    """Return the answer "no", with its reason."""
    return Probe(available=False, reason=reason)


def calling(helper: int) -> bytes:
    """Return the program that calls a helper by number and returns."""
    return assembly.call(helper) + assembly.leave()


BPF_F_SLEEPABLE = 1 << 4

LOG_SIZE = 1 << 16


@dataclass(frozen=True)
class Variant:
    """What a program type needs besides its number to be loaded."""

    attach_type: int = 0
    attach_btf_id: int = 0
    flags: int = 0


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
    kind: str, variant: Variant | None = None, instructions: bytes = assembly.RETURN_0
) -> Iterator[int]:
    """Load a program of type ``kind``; yield its descriptor.

    Raises `OSError` with the kernel's code.
    """
    with closing(_load(kind, variant or Variant(), instructions)) as fd:
        yield fd


def _load(
    kind: str,
    variant: Variant,
    instructions: bytes,
    log: ctypes.Array[ctypes.c_char] | None = None,
    log_level: int = 0,
) -> int:
    options = LoadOptions(
        expected_attach_type=variant.attach_type,
        attach_btf_id=variant.attach_btf_id,
        prog_flags=variant.flags,
        log_level=log_level if log else 0,
        log_size=len(log) if log else 0,
        log_buf=ctypes.addressof(log) if log else None,
    )
    number, count = enums.program_type_id(kind), len(instructions) // 8
    name, license_, where = b"probe", b"GPL", ctypes.byref(options)
    loaded: int = libbpf.call("bpf_prog_load", number, name, license_, instructions, count, where)
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
    found: int = find(pointer, name.encode(), kind)
    return max(0, found)


def in_private_network(function: Callable[[], None]) -> None:
    """Run ``function`` in a network namespace that ends with it; `LO` is the index of its ``lo``.

    Raises what ``function`` raises, and `UnavailableError` when no namespace can be made.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                code = os.strerror(ctypes.get_errno())
                raise UnavailableError(  # noqa: TRY301 (it is raised in the caller's thread)
                    f"needs CAP_SYS_ADMIN to make a private network namespace ({code}); run as root"
                )
            function()
        except BaseException as error:  # noqa: BLE001 (it is raised in the caller's thread)
            raised.append(error)

    thread = threading.Thread(target=run, name="pytest-bpf-probe")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


CLONE_NEWNET = 0x40000000

LO = 1
"""The index of the loopback interface of every network namespace."""


def status(field: str) -> str:
    """Return a field of this process's ``/proc/self/status``, or "" when there is none."""
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name == field), "")


def code(number: int) -> str:
    """Return an error code's name; 524 is the kernel's own ``ENOTSUPP``."""
    return "ENOTSUPP" if number == 524 else errnos.errorcode.get(number, str(number))
