"""Running a packet program very often: ``BPF_PROG_RUN`` by attributes that are prepared once."""

from __future__ import annotations

import ctypes
import mmap
import struct
from functools import cache
from typing import TYPE_CHECKING

from pytest_bpf.kernel.sys.bpf_syscall import PROG_TEST_RUN, call_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOM = 1 << 16
"""Bytes of data that a `Runner` takes."""

GROWTH = 4096
"""Bytes that a program may add to its data."""

_ATTRIBUTES = struct.Struct("=IIIIQQIIIIQQIIII")
"""``union bpf_attr`` for a test run, filled up to a multiple of 8 bytes."""

RETVAL, DURATION = 1, 9
"""The members with what the program returned and the nanoseconds, in words of 32 bits."""

CONTEXT_ROOM, CONTEXT_OUT = 256, 11
"""Bytes for the context of a packet, and the member with how many came back, in words."""

Answer = tuple[int, bytes, bytes]
"""What a program returned, unsigned, its packet or else its context afterwards, and a packet's
context, where one was given."""

REFUSED: Answer = (-1, b"", b"")
"""The answer of a program that the kernel did not run."""


@cache
def _syscall() -> Callable[..., int]:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function


class Runner:
    """Runs packet programs from memory of its own, which one thread may use at a time.

    ``run(fd, data)`` runs a program once with at most `ROOM` bytes; it returns the packet
    afterwards, or None when the kernel refused, with the reason in `ctypes.get_errno`. ``words``
    are the kernel's answers (`RETVAL`, `DURATION`).
    """

    def __init__(self) -> None:
        whole = ROOM + GROWTH
        incoming, out = mmap.mmap(-1, ROOM), mmap.mmap(-1, whole)
        attributes = ctypes.create_string_buffer(_ATTRIBUTES.size)
        members = (_address(incoming), _address(out), 1, *(0,) * 9)
        _ATTRIBUTES.pack_into(attributes, 0, 0, 0, 0, 0, *members)
        self.words = words = memoryview(attributes).cast("B").cast("I")
        arguments = (
            call_number(),
            PROG_TEST_RUN,
            ctypes.c_void_p(ctypes.addressof(attributes)),
            _ATTRIBUTES.size,
        )
        call = _syscall()

        def run(fd: int, data: bytes) -> bytes | None:
            size = len(data)
            incoming[:size] = data
            words[0], words[2], words[3] = fd, size, whole
            return out[: words[3]] if call(*arguments) >= 0 else None

        self.run = run


class PacketRunner:
    """Runs several packet programs one after another with the same packet.

    ``run(packet)`` returns what each returned, unsigned, its packet and its context afterwards, or
    `REFUSED`, with the reason in `ctypes.get_errno`. Programs have a context of the kernel's own
    unless ``context`` says how many bytes ``run(packet, context)`` gives them. One thread may use
    it at a time.
    """

    def __init__(self, fds: Sequence[int], room: int = ROOM, context: int = 0) -> None:
        whole = room + GROWTH
        incoming, incoming_context = mmap.mmap(-1, room), mmap.mmap(-1, CONTEXT_ROOM)
        attributes = ctypes.create_string_buffer(_ATTRIBUTES.size * len(fds))
        words = memoryview(attributes).cast("B").cast("I")
        calls, contexts_out = [], []
        for number, fd in enumerate(fds):
            out, out_context = mmap.mmap(-1, whole), mmap.mmap(-1, CONTEXT_ROOM)
            data = (_address(incoming), _address(out), 1, 0)
            contexts = (_address(incoming_context), _address(out_context)) if context else (0, 0)
            members = (*data, context, 0, *contexts, 0, 0, 0, 0)
            _ATTRIBUTES.pack_into(attributes, number * _ATTRIBUTES.size, fd, 0, 0, 0, *members)
            arguments = (
                call_number(),
                PROG_TEST_RUN,
                ctypes.c_void_p(ctypes.addressof(attributes) + number * _ATTRIBUTES.size),
                _ATTRIBUTES.size,
            )
            first = number * _ATTRIBUTES.size // 4
            calls.append((arguments, out, first + 1, first + 2, first + 3))
            contexts_out.append((out_context, first + CONTEXT_OUT))
        self._keep = attributes
        call = _syscall()

        def run(packet: bytes) -> list[Answer]:
            size = len(packet)
            incoming[:size] = packet
            answers = []
            for arguments, out, retval, size_in, size_out in calls:
                words[size_in], words[size_out] = size, whole
                if call(*arguments) < 0:
                    answers.append(REFUSED)
                else:
                    answers.append((words[retval], out[: words[size_out]], b""))
            return answers

        def run_two(packet: bytes) -> list[Answer]:
            """Do the same for two programs, as most searches do: without a loop it is faster."""
            size = len(packet)
            incoming[:size] = packet
            words[2] = words[size_in_two] = size
            words[3] = words[size_out_two] = whole
            first, second = call(*one), call(*two)
            return [
                (words[1], out_one[: words[3]], b"") if first >= 0 else REFUSED,
                (words[retval_two], out_two[: words[size_out_two]], b"")
                if second >= 0
                else REFUSED,
            ]

        def run_with_context(packet: bytes, given: bytes) -> list[Answer]:
            incoming_context[:context] = given
            for _, at in contexts_out:
                words[at] = CONTEXT_ROOM
            return [
                (retval, out, context_out[: words[at]]) if retval >= 0 else REFUSED
                for (retval, out, _), (context_out, at) in zip(
                    run(packet), contexts_out, strict=True
                )
            ]

        self.run = run
        if len(fds) == 2:
            (one, out_one, *_), (two, out_two, retval_two, size_in_two, size_out_two) = calls
            self.run = run_two
        self.run_with_context = run_with_context


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class ContextRunner:
    """Runs programs that take no packet: raw tracepoints with their arguments, syscall programs.

    ``run(fd, data)`` does it once, ``data`` being the context, and returns as `Runner.run` does. A
    program may change its context: ``context()`` returns it as it was left.
    """

    def __init__(self, size: int) -> None:
        self._context = ctypes.create_string_buffer(max(size, 1))
        self._attributes = ctypes.create_string_buffer(_ATTRIBUTES.size)
        address = ctypes.addressof(self._context) if size else 0
        members = (0, 0, 0, 0, size, 0, address, 0, 0, 0, 0, 0)
        _ATTRIBUTES.pack_into(self._attributes, 0, 0, 0, 0, 0, *members)
        words = memoryview(self._attributes).cast("B").cast("I")
        whole = memoryview(self._context).cast("B")[:size]
        arguments = (
            call_number(),
            PROG_TEST_RUN,
            ctypes.c_void_p(ctypes.addressof(self._attributes)),
            _ATTRIBUTES.size,
        )
        call = _syscall()

        def run(fd: int, data: bytes) -> int:
            whole[:] = data
            words[0], words[1] = fd, 0  # the kernel refuses another answer than 0 to begin with
            return words[1] if call(*arguments) >= 0 else -1

        def context_now() -> bytes:
            return bytes(whole)

        self.run, self.context = run, context_now
