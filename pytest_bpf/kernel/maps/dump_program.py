"""The program that copies a whole map into an array, inside the kernel and without a compiler.

A program of type ``syscall`` (5.14) calls ``bpf_for_each_map_elem`` (5.13), whose callback copies
one element into one row of a mmapable array. It is as the C would be::

    struct progress { u64 count; ... };

    static long each(struct bpf_map *map, void *key, void *value, struct progress *so_far)
    {
            struct row *row = bpf_map_lookup_elem(&rows, &so_far->count);    // its low half

            if (!row) {
                    so_far->count = room + 1;                   // there are more than fit
                    return 1;
            }
            copy(row->key, key); copy(row->value, value);
            so_far->count++;
            return 0;
    }

The rows of an array have no key: it is the number of the row. Of a per-CPU map the values of all
CPUs are copied, by ``bpf_map_lookup_percpu_elem`` (5.19). Of a hash map an element counts when
:mod:`pytest_bpf.kernel.maps.dump_checks` has found that the walk is where it should be.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from dataclasses import dataclass

from pytest_bpf.kernel.btf import Kind, enums
from pytest_bpf.kernel.maps import dump_checks
from pytest_bpf.kernel.maps.dump_checks import COUNT, PROGRESS
from pytest_bpf.kernel.programs.assembly import (
    LOOKUP,
    add,
    call,
    copy,
    copy_bytes,
    leave,
    length,
    load_function,
    load_map,
    move,
    otherwise,
    plus,
    read,
    repeat,
    stack,
    store,
    times,
    write,
)
from pytest_bpf.kernel.programs.load import BPF_F_SLEEPABLE, closing
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.libbpf_options import LoadOptions

FOR_EACH, LOOKUP_PERCPU = 164, 195
"""The helpers ``bpf_for_each_map_elem`` and ``bpf_map_lookup_percpu_elem``."""

NAME = b"pytest_bpf_dump"

"""The kinds of map there are dump programs for, by libbpf's names."""

LOW_HALF = 4 if sys.byteorder == "big" else 0


@dataclass(frozen=True)
class Shape:
    """What a row is made of, in bytes: the key, unless it is an array, and a value.

    ``cpus`` is how many values there are, 0 where the map is not per-CPU.
    """

    indexed: bool
    key_size: int
    value_size: int
    cpus: int

    @property
    def step(self) -> int:
        """Bytes from one value to the next."""
        return _rounded(self.value_size)

    @property
    def value_at(self) -> int:
        """Where in a row the value begins."""
        return 0 if self.indexed else _rounded(self.key_size)

    @property
    def size(self) -> int:
        """Bytes of a row."""
        return self.value_at + self.step * max(1, self.cpus)


def load_dump_program(target: int, rows: int, shape: Shape, room: int) -> int:
    """Load the program that copies the map ``target`` into ``rows``, of which there are ``room``.

    Returns its descriptor. Run, it returns how many rows it filled, ``room + 1`` when it ran out of
    them, and `dump_checks.ASTRAY` when the map was changed under its feet. Raises `OSError` when
    the kernel cannot do that, for this map or at all.
    """
    main = _main(target, shape)
    code = main + _each(target, rows, shape, room)
    records = (ctypes.c_uint32 * 4)(0, 3, length(main), 4)
    options = LoadOptions(
        prog_flags=BPF_F_SLEEPABLE,
        func_info=ctypes.addressof(records),
        func_info_cnt=2,
        func_info_rec_size=8,
    )
    with closing(_load_types()) as types:
        options.prog_btf_fd = types
        kind, where = enums.program_type_id("syscall"), ctypes.byref(options)
        return int(libbpf.call("bpf_prog_load", kind, NAME, b"GPL", code, length(code), where))


def _main(target: int, shape: Shape) -> bytes:
    code = store(-PROGRESS + COUNT, 0)
    if not shape.indexed:
        code += dump_checks.begin(load_map(1, target))
    end = stack(3, -PROGRESS) + move(4, 0) + call(FOR_EACH)
    end += stack(1, -PROGRESS) + read(0, 1, COUNT + LOW_HALF, 4) + leave()
    return code + load_map(1, target) + load_function(2, end)


def _each(target: int, rows: int, shape: Shape, room: int) -> bytes:
    """Return the callback.

    R6 is the key, R7 the value or the number of a CPU, R8 the progress, R9 the row.
    """
    code = copy(6, 2) + copy(7, 3) + copy(8, 4) + load_map(1, rows)
    code += copy(2, 6) if shape.indexed else copy(2, 8) + add(2, COUNT + LOW_HALF)
    full = move(1, room + 1) + write(8, COUNT, 1) + move(0, 1) + leave()
    code += call(LOOKUP) + otherwise(0, full) + copy(9, 0)
    if not shape.indexed:
        code += copy_bytes(9, 0, 6, shape.key_size, through=1)
    if shape.cpus:
        code += _values(target, shape)
    else:
        code += copy_bytes(9, shape.value_at, 7, shape.value_size, through=1)
    if not shape.indexed:
        code += dump_checks.check(shape.key_size, room)
    return code + read(1, 8, COUNT) + add(1, 1) + write(8, COUNT, 1) + move(0, 0) + leave()


def _values(target: int, shape: Shape) -> bytes:
    """Copy the values of all CPUs; an element that is deleted meanwhile does not count."""
    find = load_map(1, target) + copy(2, 6) + copy(3, 7) + call(LOOKUP_PERCPU)
    find += otherwise(0, move(0, 0) + leave())
    row = copy(2, 7) + times(2, shape.step) + plus(2, 9)
    values = copy_bytes(2, shape.value_at, 0, shape.value_size, through=1)
    return repeat(7, shape.cpus, find + row + values)


def _load_types() -> int:
    """Load the BTF of the two functions, which a callback must have: types 3 and 4."""
    names = b"\0int\0main\0each\0"
    header, kind = struct.Struct("=HBBIIIII"), 24
    types = struct.pack("=IIII", 1, Kind.INT << kind, 4, 1 << kind | 32)
    types += struct.pack("=III", 0, Kind.FUNC_PROTO << kind, 1)
    types += struct.pack("=III", 5, Kind.FUNC << kind, 2)
    types += struct.pack("=III", 10, Kind.FUNC << kind, 2)
    size = header.size
    blob = header.pack(0xEB9F, 1, 0, size, 0, len(types), len(types), len(names)) + types + names
    return int(libbpf.call("bpf_btf_load", blob, len(blob), None))


def _rounded(size: int) -> int:
    return (size + 7) // 8 * 8
