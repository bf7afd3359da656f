"""A whole map in one array: as bytes, typed, and decoded in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.kernel.values.columns import collector_off, decode_all
from pytest_bpf.kernel.values.dtypes import element_dtype
from pytest_bpf.objects.maps.percpu import PerCPU

if TYPE_CHECKING:
    from pytest_bpf.kernel.maps.batches import Content
    from pytest_bpf.objects.maps.layout import ElementLayout

    Rows = np.ndarray[Any, Any]


def to_rows(layout: ElementLayout, read: Content) -> Rows:
    """Return elements as `element_dtype` has them, without what lies between CPUs' values."""
    rows = np.empty(read.count, element_dtype(layout.key.size, layout.value.size, layout.cpus))
    if read.count:
        value = rows.dtype["value"]
        padded = np.dtype({"names": ["v"], "formats": [value.base], "itemsize": layout.step})
        rows["key"] = np.frombuffer(read.keys, rows.dtype["key"])
        rows["value"] = np.frombuffer(read.values, padded).reshape(read.count, *value.shape)["v"]
    return rows


def with_types(layout: ElementLayout, rows: Rows) -> Rows:
    """Return the same memory with the types of keys and values."""
    return rows.view(layout.dtype)


def keys(layout: ElementLayout, rows: Rows) -> list[Any]:
    """Return the keys as Python values."""
    if layout.keys_are_networks:
        size, whole = layout.key.size, rows["key"].tobytes()
        return [layout.decode_key(whole[at : at + size]) for at in range(0, len(whole), size)]
    return decode_all(layout.key, with_types(layout, rows)["key"])


def values(layout: ElementLayout, rows: Rows) -> list[Any]:
    """Return the values as Python values; a `PerCPU` for each key of a per-CPU map."""
    column = with_types(layout, rows)["value"]
    if not layout.per_cpu:
        return decode_all(layout.value, column)
    with collector_off():
        flat = iter(decode_all(layout.value, column.reshape(-1, *column.shape[2:])))
        return list(map(PerCPU, zip(*[flat] * layout.cpus, strict=True)))
