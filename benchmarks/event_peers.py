"""One consumer of events, in a process of its own: ``event_peers.py PEER ring|perf MAP_FD OBJECT``.

It says ``ready``, and answers each line: ``drain`` by taking what there is, ``live`` by taking
what comes until the last event. An answer is the nanoseconds of CPU time it took, how many events
there were, and the sum of their numbers, which says whether they were the right ones. Run by any
Python that has the peer: nothing else is imported.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

LAST = 2**64 - 1
PAGES = 1024
"""Pages of a perf buffer: as large as the ring."""

EVERY, AT_ONCE = 0.001, 10_000
"""How often we look, and for how many events."""


class Event(ctypes.Structure):
    _fields_ = (("n", ctypes.c_uint64), ("at", ctypes.c_uint64))


class Consumer:
    """What each peer is: it counts ``events``, adds up their ``total`` and sees the end."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.events = self.total = 0
        self.ended = False

    def drain(self) -> None:
        raise NotImplementedError

    def poll(self) -> None:
        raise NotImplementedError

    def take(self, n: int) -> None:
        if n == LAST:
            self.ended = True
        else:
            self.events += 1
            self.total += n


class Ours(Consumer):
    """pytest-bpf, by arrays."""

    def __init__(self, kind: str, fd: int, _: str) -> None:
        from pytest_bpf.kernel.btf import Int, Member, Struct
        from pytest_bpf.objects import Map

        word = Int("__u64", 8)
        event = Struct("event", 16, (Member("n", word, 0), Member("at", word, 64)))
        of = Map(fd, kind, value=event)
        size = None if kind == "ring" else PAGES * os.sysconf("SC_PAGESIZE")
        self.reader = of.events(every=EVERY, size=size)
        super().__init__()

    def drain(self) -> None:
        self._add(self.numbers(self.reader.read_array()))

    def poll(self) -> None:
        self._add(self.numbers(self.reader.read_array(AT_ONCE, timeout=0.1)))

    def numbers(self, events: Any) -> Any:
        return events.array["n"]

    def _add(self, numbers: Any) -> None:
        if len(numbers) and numbers[-1] == LAST:
            self.ended = True
            numbers = numbers[:-1]
        self.events += len(numbers)
        self.total += int(numbers.sum())


class OursTyped(Ours):
    """pytest-bpf, by objects."""

    def numbers(self, events: Any) -> Any:
        return [event.n for event in events]

    def _add(self, numbers: list[int]) -> None:
        if numbers and numbers[-1] == LAST:
            self.ended = True
            numbers.pop()
        self.events += len(numbers)
        self.total += sum(numbers)


class Ctypes(Consumer):
    """libbpf's consumer with a callback in Python."""

    def __init__(self, kind: str, fd: int, _: str) -> None:
        lib = ctypes.CDLL("libbpf.so.1")
        unpack = struct.Struct("=QQ").unpack
        read, take, word = ctypes.string_at, self.take, ctypes.c_void_p

        if kind == "ring":
            new = lib.ring_buffer__new
            self._consume, self._poll = lib.ring_buffer__consume, lib.ring_buffer__poll

            def called(_: Any, data: int, size: int) -> int:
                take(unpack(read(data, size))[0])
                return 0

            form = ctypes.CFUNCTYPE(ctypes.c_int, word, word, ctypes.c_size_t)
            arguments: tuple[Any, ...] = (fd, form(called), None, None)
        else:
            new = lib.perf_buffer__new
            self._consume, self._poll = lib.perf_buffer__consume, lib.perf_buffer__poll

            def put_out(_: Any, __: int, data: int, ___: int) -> None:
                take(unpack(read(data, 16))[0])

            form = ctypes.CFUNCTYPE(None, word, ctypes.c_int, word, ctypes.c_uint32)
            arguments = (fd, ctypes.c_size_t(PAGES), form(put_out), None, None, None)
        new.restype = ctypes.c_void_p
        self._kept = arguments
        self._consumer = ctypes.c_void_p(new(*arguments))
        if not self._consumer:
            raise OSError("libbpf made no consumer")
        super().__init__()

    def drain(self) -> None:
        self._consume(self._consumer)

    def poll(self) -> None:
        self._poll(self._consumer, 100)


class Bcc(Consumer):
    """BCC: a callback, and a cast to the event's type."""

    def __init__(self, kind: str, fd: int, _: str) -> None:
        from bcc import BPF  # type: ignore[import-not-found]

        text = (Path(__file__).parent / "programs" / "events.bcc.c").read_text(encoding="utf-8")
        self._loaded = BPF(text=text)
        table = self._loaded[kind]
        os.dup2(fd, table.map_fd)
        if kind == "ring":
            table.open_ring_buffer(lambda _, data, __: self.take(table.event(data).n))
            self._consume, self._poll = (
                self._loaded.ring_buffer_consume,
                self._loaded.ring_buffer_poll,
            )
        else:
            table.open_perf_buffer(
                lambda _, data, __: self.take(table.event(data).n), page_cnt=PAGES
            )
            self._consume, self._poll = (
                self._loaded.perf_buffer_consume,
                self._loaded.perf_buffer_poll,
            )
        super().__init__()

    def drain(self) -> None:
        self._consume()

    def poll(self) -> None:
        self._poll(100)


class Pylibbpf(Consumer):
    """pylibbpf: a callback that is given the event as a ctypes structure."""

    def __init__(self, kind: str, fd: int, compiled: str) -> None:
        from pylibbpf import BpfObject  # type: ignore[import-not-found]

        if kind == "ring":
            raise NotImplementedError("it has no ring buffers")
        self._loaded = BpfObject(compiled, structs={"event": Event})
        self._loaded.load()
        os.dup2(fd, self._loaded["perf"].get_fd())
        self._buffer = self._loaded["perf"].open_perf_buffer(
            lambda _, event: self.take(event.n), struct_name="event", page_cnt=PAGES
        )
        super().__init__()

    def drain(self) -> None:
        self._buffer.consume()

    def poll(self) -> None:
        self._buffer.poll(100)


PEERS = {
    "ours": Ours,
    "ours_typed": OursTyped,
    "ctypes": Ctypes,
    "bcc": Bcc,
    "pylibbpf": Pylibbpf,
}


def main() -> None:
    peer, kind, fd, compiled = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a peer itself prints is no answer
    try:
        consumer = PEERS[peer](kind, int(fd), compiled)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is why there is no such peer)
        sys.exit(f"{type(error).__name__}: {error}")
    print("ready", file=answers)
    for line in sys.stdin:
        consumer.clear()
        begin = time.process_time_ns()
        if line == "drain\n":
            consumer.drain()
        else:
            while not consumer.ended:
                consumer.poll()
        print(time.process_time_ns() - begin, consumer.events, consumer.total, file=answers)


if __name__ == "__main__":
    main()
