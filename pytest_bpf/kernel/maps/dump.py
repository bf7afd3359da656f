"""Copying a whole map in one go: the dump program with the array it fills, set up once."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.errors import UnavailableError, UnknownNameError, with_article
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.maps.dump_checks import ASTRAY
from pytest_bpf.kernel.maps.dump_program import NAME, Shape, load_dump_program
from pytest_bpf.kernel.programs.load import closing
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.descriptors import SERVANTS
from pytest_bpf.kernel.sys.info import MapInfo, ProgramInfo, read_info
from pytest_bpf.kernel.sys.libbpf_options import MapOptions, RunOptions
from pytest_bpf.kernel.values.dtypes import element_dtype
from pytest_bpf.kinds.flags import MapFlags
from pytest_bpf.kinds.maps import FOR_EACH

if TYPE_CHECKING:
    from collections.abc import Callable

    Rows = np.ndarray[Any, Any]


LARGEST = 4096
"""Bytes of a key or a value up to which copying is worth instructions of its own."""

MOST = (1 << 31) - 2
"""Rows that an instruction can compare with."""

FIRST_ROOM, GROWTH = 4096, 16
"""Rows to begin with where the map does not say how many it has, and by how much to go on."""


class MapDump:
    """The dump program of one map; `close` frees it, and so does the end of the value.

    Raises `OSError` when this kernel cannot do it for this map.
    """

    def __init__(self, target: int, kind: str, shape: Shape, max_entries: int) -> None:
        if kind not in FOR_EACH or max(shape.key_size, shape.value_size) > LARGEST:
            raise OSError(0, f"there is no dump program for {with_article(kind)} of this size")
        if max_entries > MOST:
            raise OSError(0, f"{max_entries} rows are more than a dump program counts")
        if shape.cpus and not numbered_from_0():
            raise OSError(0, "the CPUs are not numbered without gaps")
        self._target, self._shape, self._max_entries = target, shape, max_entries
        self._options = RunOptions()
        self._unload: Callable[[], object] = lambda: None
        self._set_up(max_entries if shape.indexed else min(max_entries, FIRST_ROOM))

    def read(self) -> Rows | None:
        """Return a copy of the elements as `element_dtype` has them; None if it was led astray."""
        while (count := self._run()) > self._room:
            if count == ASTRAY:
                return None
            self._set_up(_more(self._room, self._max_entries))
        made = np.empty(count, self._element)
        made["key"] = np.arange(count) if self._keys is None else self._keys[:count]
        made["value"] = self._values[:count]
        return made

    def close(self) -> None:
        """Free the program and the array."""
        self._unload()
        self._keys: Rows | None = None
        self._values: Rows = np.empty(0)  # the last that holds the array's memory

    def _run(self) -> int:
        libbpf.call("bpf_prog_test_run_opts", self._program, ctypes.byref(self._options))
        return int(self._options.retval)

    def _set_up(self, room: int) -> None:
        self.close()
        shape, size = self._shape, self._shape.size
        array = MapOptions(map_flags=MapFlags.MMAPABLE)
        kind, where = enums.map_type_id("array"), ctypes.byref(array)
        with closing(libbpf.call("bpf_map_create", kind, NAME, 4, size, room, where)) as rows:
            memory = mmap.mmap(rows, room * size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._program = _loaded(self._target, rows, shape, room)
            array_id = read_info(rows, MapInfo).id  # the memory keeps the array open
        objects = {f"map {array_id}", f"program {read_info(self._program, ProgramInfo).id}"}
        SERVANTS.update(objects)
        self._unload = weakref.finalize(self, _unload, self._program, objects)
        whole = np.frombuffer(memory, self._row)
        self._keys = None if shape.indexed else whole["key"]
        self._values, self._room = whole["value"]["v"], room

    @cached_property
    def _element(self) -> np.dtype[Any]:
        return element_dtype(self._shape.key_size, self._shape.value_size, self._shape.cpus)

    @cached_property
    def _row(self) -> np.dtype[Any]:
        """The dtype of a row, in which each value has its padding behind it."""
        shape, element = self._shape, self._element
        value, cpus = element["value"].base, element["value"].shape
        padded = np.dtype({"names": ["v"], "formats": [value], "itemsize": shape.step})
        fields: dict[str, tuple[Any, int]] = {"value": ((padded, cpus), shape.value_at)}
        if not shape.indexed:
            fields["key"] = (element["key"], 0)
        return np.dtype(
            {
                "names": list(fields),
                "formats": [form for form, _ in fields.values()],
                "offsets": [at for _, at in fields.values()],
                "itemsize": shape.size,
            }
        )


def _loaded(target: int, rows: int, shape: Shape, room: int) -> int:
    try:
        return load_dump_program(target, rows, shape, room)
    except (UnknownNameError, UnavailableError) as error:
        raise OSError(0, str(error)) from None


def _unload(program: int, objects: set[str]) -> None:
    os.close(program)
    SERVANTS.difference_update(objects)


def _more(room: int, max_entries: int) -> int:
    """Return how many rows to try next; a map that changes may show more than it can have."""
    return min(room * GROWTH, max_entries) if room < max_entries else room * 2


@cache
def numbered_from_0() -> bool:
    """Say whether the possible CPUs are 0 to n - 1, so that the nth value is CPU n's."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    return "," not in text and text.startswith("0")
