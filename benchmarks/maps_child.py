"""One way of reading a whole map in a process of its own: ``maps_child.py WAY WHAT``.

``WHAT`` is the id of a map, for pylibbpf an object file. It says ``ready`` and the id of the map it
reads, and then, for each number it is sent, reads the map as often and answers with the median of
the processor time, in milliseconds, and the number of elements. It is run by a Python that has the
way's library.
"""

# ruff: noqa: PLC0415 (each way imports its own library, and no other)

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sized


class Amounts(ctypes.Structure):
    """``struct amounts`` of ``programs/maps.bpf.c``."""

    _fields_ = (("count", ctypes.c_uint64), ("bytes", ctypes.c_uint64))


def snapshot(map_id: int) -> Callable[[], Sized]:
    from pytest_bpf.objects import Map

    return Map.from_id(map_id).snapshot


def items(map_id: int) -> Callable[[], Sized]:
    from pytest_bpf.objects import Map

    found: Callable[[], Sized] = Map.from_id(map_id).items
    return found


def bcc_table(map_id: int) -> Any:
    """Return BCC's own object for the map, without a program that it would have to compile."""
    from bcc import lib, table  # type: ignore[import-not-found]

    fd = lib.bpf_map_get_fd_by_id(map_id)
    kind, most = facts(fd, "map_type"), facts(fd, "max_entries")
    classes = {1: "HashTable", 2: "Array", 5: "PerCpuHash", 6: "PerCpuArray"}
    nobody = SimpleNamespace(module=None)
    made = getattr(table, classes[kind])(nobody, map_id, fd, ctypes.c_uint, Amounts)
    made.ttype, made.max_entries = kind, most
    return made


def bcc_items(map_id: int) -> Callable[[], Sized]:
    found: Callable[[], Sized] = bcc_table(map_id).items
    return found


def bcc_batch(map_id: int) -> Callable[[], Sized]:
    found = bcc_table(map_id)
    return lambda: list(found.items_lookup_batch())


def bpftool(map_id: int) -> Callable[[], Sized]:
    command = ("bpftool", "map", "dump", "id", str(map_id), "-j")

    def dump() -> list[Any]:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        parsed: list[Any] = json.loads(done.stdout)
        return parsed

    return dump


def one_by_one(map_id: int) -> Callable[[], Sized]:
    """Read by libbpf through ctypes, an element at a time."""
    bpf = ctypes.CDLL("libbpf.so.1")
    fd = bpf.bpf_map_get_fd_by_id(map_id)
    per_cpu = facts(fd, "map_type") in {5, 6}
    kind = Amounts * (os.cpu_count() or 1) if per_cpu else Amounts
    following, look_up = bpf.bpf_map_get_next_key, bpf.bpf_map_lookup_elem

    def read() -> list[Any]:
        found, key, value = [], ctypes.c_uint32(), kind()
        at, here = ctypes.byref(key), ctypes.byref(value)
        error = following(fd, None, at)
        while not error:
            if not look_up(fd, at, here):
                found.append((key.value, kind.from_buffer_copy(value)))
            error = following(fd, at, at)
        return found

    return read


def pylibbpf(map_id: int) -> Callable[[], Sized]:
    found: Callable[[], Sized] = _own[map_id].items
    return found


_own: dict[int, Any] = {}


def load_by_pylibbpf(path: str) -> int:
    """Load an object by pylibbpf, which reads no map of others; return the id of its map."""
    import pylibbpf as library  # type: ignore[import-not-found]

    loaded = library.BpfObject(path)
    loaded.load()
    dumped = loaded.get_map("dumped") if hasattr(loaded, "get_map") else loaded["dumped"]
    number = facts(dumped.get_fd(), "map_id")
    _own[number], _own[-1] = dumped, loaded
    return number


def facts(fd: int, name: str) -> int:
    """Return a number from a descriptor's fdinfo."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:  # noqa: PTH123
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def cpu_seconds() -> float:
    """Return the processor time of this process and of the commands that it ran."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    way, what = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the libraries print is no answer
    try:
        number = load_by_pylibbpf(what) if way == "pylibbpf" else int(what)
        read = globals()[way](number)
    except Exception as error:  # noqa: BLE001 (a library of others fails as it likes)
        sys.exit(f"{type(error).__name__}: {error}")
    print("ready", number, file=answers)
    for line in sys.stdin:
        taken = []
        for _ in range(int(line)):
            start = cpu_seconds()
            try:
                found = read()
            except Exception as error:  # noqa: BLE001
                sys.exit(f"{type(error).__name__}: {error}")
            taken.append((cpu_seconds() - start) * 1000)
            count = len(found)
            del found
        print(median(taken), count, file=answers)


if __name__ == "__main__":
    main()
