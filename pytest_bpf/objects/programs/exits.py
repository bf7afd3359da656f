"""What programs, and the kernel's updates of maps, return: counted at their exit (``fexit``).

This slows each run down by some tens of nanoseconds: it is for looking at a test, not for
measuring one. Every object here is to be closed.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel import btf
from pytest_bpf.kernel.btf.offsets import member_offset
from pytest_bpf.kernel.maps import batches, elements
from pytest_bpf.kernel.programs import assembly as asm
from pytest_bpf.kernel.programs.load import Variant, btf_id, program
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.info import first_function
from pytest_bpf.kernel.values.actions import action
from pytest_bpf.kinds.attach_types import AttachType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf.objects.maps.map import Map
    from pytest_bpf.objects.programs.loaded import LoadedProgram

ROOM = 256
"""Different answers that are told apart."""

KEY, VALUE = struct.Struct("=Ii"), struct.Struct("=Q")
"""A map's id, or 0, and what was returned; how often."""

UPDATES = {
    "hash": ("htab_map_update_elem", 4),
    "percpu_hash": ("htab_percpu_map_update_elem", 4),
    "lru_hash": ("htab_lru_map_update_elem", 4),
    "lru_percpu_hash": ("htab_lru_percpu_map_update_elem", 4),
    "array": ("array_map_update_elem", 4),
    "lpm_trie": ("trie_update_elem", 4),
    "queue": ("queue_stack_map_push_elem", 3),
    "stack": ("queue_stack_map_push_elem", 3),
}
"""By type of map: the kernel's function that updates it, and how many arguments that has."""


class Exits:
    """Counts answers, by the map that they are about (0: none)."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._counts = elements.create("hash", KEY.size, VALUE.size, ROOM)
        self._stack.callback(os.close, self._counts)

    def watch(self, variant: Variant, arguments: int, *, of_map: bool = False) -> None:
        """Count from here on; raises `OSError` where the kernel attaches nothing there.

        With ``of_map`` the first argument is a map, and answers below 0 alone are counted.
        """
        code = _counting(self._counts, arguments, of_map=of_map)
        with ExitStack() as failure:
            fd = failure.enter_context(program("tracing", variant, code, "count_exits"))
            link: int = libbpf.call("bpf_raw_tracepoint_open", None, fd)
        self._stack.callback(os.close, link)

    def read(self) -> Counter[tuple[int, int]]:
        """Return how often each was returned, by map and answer, in their order."""
        content = batches.read(self._counts, KEY.size, VALUE.size, ROOM, hashed=True)
        pairs = zip(KEY.iter_unpack(content.keys), VALUE.iter_unpack(content.values), strict=True)
        return Counter({key: count for key, (count,) in sorted(pairs)})

    def close(self) -> None:
        """Detach and unload it."""
        self._stack.close()


class Verdicts:
    """Counts what a program returns from here on; raises `UnavailableError` where that cannot be.

    A program of tracing, one without BTF, and one that is not compiled to machine code have no
    exit to attach to.
    """

    def __init__(self, subject: LoadedProgram) -> None:
        self._type = subject.type
        self._exits = Exits()
        try:
            number = first_function(subject.fd)
            variant = Variant(AttachType.TRACE_FEXIT, number, program_fd=subject.fd)
            self._exits.watch(variant, 1)
        except OSError as error:
            self._exits.close()
            raise UnavailableError(
                f"what {subject.name!r} returns is not counted: {_reason(error)}"
            ) from None

    def read(self) -> Counter[int]:
        """Return how often the program returned each value, named where its kind names them."""
        counts: Counter[int] = Counter()
        for (_, value), count in self._exits.read().items():
            counts[action(self._type, value & 0xFFFFFFFF)] += count
        return counts

    def close(self) -> None:
        """Count no longer."""
        self._exits.close()


class FailedUpdates:
    """Counts updates of maps that the kernel refuses, by programs and by system calls."""

    def __init__(self) -> None:
        self._exits = Exits()
        self._watched: set[str] = set()
        self.why_not = ""

    def watch(self, maps: Iterable[Map]) -> None:
        """Count those of maps of these kinds, too; ``why_not`` says of which that cannot be."""
        for kind in {entry.type for entry in maps} & UPDATES.keys():
            function, arguments = UPDATES[kind]
            if function in self._watched:
                continue
            self._watched.add(function)
            try:
                number = btf_id(function, btf.Kind.FUNC)
                if number:
                    variant = Variant(AttachType.TRACE_FEXIT, number)
                    self._exits.watch(variant, arguments, of_map=True)
            except (OSError, UnavailableError) as error:
                self.why_not = f"failed updates of maps are not counted: {_reason(error)}"

    def read(self) -> dict[int, Counter[str]]:
        """Return, by the map's id, how often updates failed with which error: ``"E2BIG"``."""
        failed: dict[int, Counter[str]] = {}
        for (number, answer), count in self._exits.read().items():
            name = errno.errorcode.get(-answer, str(answer))
            failed.setdefault(number, Counter())[name] += count
        return failed

    def close(self) -> None:
        """Count no longer."""
        self._exits.close()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"the kernel refuses fexit ({errno.errorcode.get(error.errno or 0, error.errno)})"
    return str(error)


def _counting(counts: int, arguments: int, *, of_map: bool) -> bytes:
    """Return the program: it looks its answer up, and adds one to the count."""
    key, count = -8, -16
    insert = (
        asm.store(count, 1)
        + asm.load_map(1, counts)
        + asm.stack(2, key)
        + asm.stack(3, count)
        + asm.move(4, elements.ANY)
        + asm.call(asm.UPDATE)
    )
    body = (
        asm.load_map(1, counts)
        + asm.stack(2, key)
        + asm.call(asm.LOOKUP)
        + asm.otherwise(0, insert + asm.RETURN_0)
        + asm.move(1, 1)
        + asm.increase(0, 1)
    )
    map_id = asm.move(7, 0)
    if of_map:
        map_id = asm.read(7, 1, 0) + asm.read(7, 7, member_offset("bpf_map", "id"), 4)
    head = (
        map_id
        + asm.read(6, 1, 8 * arguments)
        + asm.write(10, key, 7, 4)
        + asm.write(10, key + 4, 6, 4)
    )
    if of_map:
        body = asm.when_negative(6, body)
    return head + body + asm.RETURN_0
