"""How one map is read whole: the fastest way that the kernel has for it, found by trying."""

from __future__ import annotations

import mmap
import threading
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.maps import batches
from pytest_bpf.kernel.maps.dump_program import Shape
from pytest_bpf.kinds.flags import MapFlags
from pytest_bpf.kinds.maps import FOR_EACH, HASHED, INDEXED

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from pytest_bpf.kernel.maps.batches import Content
    from pytest_bpf.kernel.maps.dump import MapDump
    from pytest_bpf.objects.maps.layout import ElementLayout

    Rows = np.ndarray[Any, Any]

WORTH_A_PROGRAM = 2048
"""Elements that are read by batches in the time that setting a dump program up takes."""


class Reader:
    """Reads one map: from its memory, by its dump program, by batches, or one by one.

    Small maps are read by batches, until so much was read that a dump program would have paid.
    What is set up is kept until `close`.
    """

    def __init__(self, layout: ElementLayout, max_entries: int, flags: int) -> None:
        self._layout, self._max_entries = layout, max_entries
        self.mappable = layout.kind == "array" and bool(flags & MapFlags.MMAPABLE)
        self._credit = WORTH_A_PROGRAM
        self._dump: MapDump | None = None
        self._may_dump = layout.kind in FOR_EACH
        self._one_at_a_time = threading.Lock()

    def read(self, descriptor: Callable[[], int]) -> Content | Rows:
        """Return every element that stayed in the map meanwhile, once.

        ``descriptor`` is asked when nobody else reads or closes any more. Raises `OSError` with the
        kernel's code.
        """
        with self._one_at_a_time:
            fd = descriptor()
            if self.mappable and self._max_entries > WORTH_A_PROGRAM:
                return self._from_memory(fd)
            if self._may_dump and self._dump is None:
                if few := self._few(fd):
                    return few
                self._set_up(fd)
            rows = self._dumped()
            if rows is not None:
                return rows
            return batches.read(fd, *self._sizes, hashed=self._layout.kind in HASHED)

    def memory(self, fd: int) -> Rows:
        """Return the values of a mmapable array where they lie, read-only, as untyped rows."""
        import numpy as np  # noqa: PLC0415

        size = self._layout.value.size
        value = np.dtype({"names": ["v"], "formats": [f"V{size}"], "itemsize": (size + 7) // 8 * 8})
        length = self._max_entries * value.itemsize
        mapped = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ)
        return np.frombuffer(mapped, value, self._max_entries)["v"]

    def close(self) -> None:
        """Free the dump program, once nobody is reading."""
        with self._one_at_a_time:
            if self._dump is not None:
                self._dump.close()
            self._dump, self._may_dump = None, False

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self._layout.key.size, self._layout.stride, self._max_entries

    def _few(self, fd: int) -> Content | None:
        """Read by batches; None when there is more than the credit allows."""
        parts, credit = [], self._credit
        try:
            for part in batches.by_batches(fd, *self._sizes, most=max(1, credit)):
                parts.append(part)
                credit -= part.count
                if credit < 0:
                    return None
        except OSError as error:
            if error.errno not in batches.LACKING:
                raise
            return None
        self._credit = credit
        return batches.join(parts)

    def _dumped(self) -> Rows | None:
        """Return what the dump program copied; None when it was led astray, or cannot grow."""
        try:
            return self._dump.read() if self._dump is not None else None
        except OSError:
            self._dump, self._may_dump = None, False
            return None

    def _set_up(self, fd: int) -> None:
        from pytest_bpf.kernel.maps.dump import MapDump  # noqa: PLC0415 (numpy)

        layout = self._layout
        shape = Shape(layout.kind in INDEXED, layout.key.size, layout.value.size, layout.cpus)
        try:
            self._dump = MapDump(fd, layout.kind, shape, self._max_entries)
        except OSError:
            self._may_dump = False

    def _from_memory(self, fd: int) -> Rows:
        import numpy as np  # noqa: PLC0415

        from pytest_bpf.kernel.values.dtypes import element_dtype  # noqa: PLC0415

        rows = np.empty(self._max_entries, element_dtype(4, self._layout.value.size))
        rows["key"] = np.arange(self._max_entries)
        rows["value"] = self.memory(fd).view(rows.dtype["value"])
        return rows
