"""The system calls of process 1 that Python lacks, through ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_MOVE = 1, 2, 4, 4096, 8192
RB_POWER_OFF = 0x4321FEDC
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
FINIT_MODULE = {"x86_64": 313, "aarch64": 273}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount on ``target``, which is made when it does not exist (``mount(2)``); raise `OSError`."""
    if not os.path.exists(target):  # noqa: PTH110 (pathlib is not needed here otherwise)
        os.makedirs(target)  # noqa: PTH103
    words = (os.fsencode(word) for word in (source, target, kind))
    _check(_libc.mount(*words, ctypes.c_ulong(flags), options.encode()), f"{source} on {target}")


def load_module(path: str) -> None:
    """Load a kernel module (``finit_module(2)``); one that is loaded already does not matter."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        number = FINIT_MODULE[os.uname().machine]
        _check(_libc.syscall(number, descriptor, b"", 0), path)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)


def add_entropy(content: bytes) -> None:
    """Mix ``content`` into the kernel's random numbers and draw a new key (``random(4)``)."""
    descriptor = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        given = struct.pack("ii", len(content) * 8, len(content)) + content
        fcntl.ioctl(descriptor, RNDADDENTROPY, given)
        fcntl.ioctl(descriptor, RNDRESEEDCRNG)
    finally:
        os.close(descriptor)


def set_parameters(parameters: Mapping[str, str]) -> None:
    """Set the kernel's parameters (``/proc/sys/kernel``); those it lacks are left out."""
    for name, value in parameters.items():
        with suppress(OSError):
            Path("/proc/sys/kernel", name).write_text(value)


def power_off() -> None:
    """End the machine."""
    os.sync()
    _libc.reboot(RB_POWER_OFF)


def open_pipes() -> tuple[list[int], list[int]]:
    """Return this side's ends of a command's three streams, and the command's."""
    (input_end, to_input), (from_output, output_end), (from_errors, errors_end) = (
        os.pipe() for _ in range(3)
    )
    return [to_input, from_output, from_errors], [input_end, output_end, errors_end]


def open_terminal(rows: int, columns: int) -> tuple[int, list[int], list[int]]:
    """Return a terminal, this side's two ends of it for keys and text, and a command's three."""
    ours, theirs = os.openpty()
    resize(ours, rows, columns)
    return ours, [os.dup(ours), os.dup(ours)], [theirs, os.dup(theirs), os.dup(theirs)]


def resize(terminal: int, rows: int, columns: int) -> None:
    """Tell a terminal its size, and whoever runs on it."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def bring_up(interface: str) -> None:
    """Set an interface up (``netdevice(7)``)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as used:
        request = struct.pack("16sh14x", interface.encode(), IFF_UP)
        fcntl.ioctl(used, SIOCSIFFLAGS, request)
