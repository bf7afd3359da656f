"""A whole map in one array: as bytes, typed, and decoded in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.kernel.columns import collector_off, decode_all
from pytest_bpf.kernel.dtypes import element_dtype
from pytest_bpf.objects.percpu import PerCPU

if TYPE_CHECKING:
    from pytest_bpf.kernel.batches import Content
    from pytest_bpf.objects.layout import Layout

    Rows = np.ndarray[Any, Any]


def untyped(layout: Layout, read: Content) -> Rows:
    """Return elements as `element_dtype` has them, without what lies between CPUs' values."""
    made = np.empty(read.count, element_dtype(layout.key.size, layout.value.size, layout.cpus))
    if read.count:
        value = made.dtype["value"]
        padded = np.dtype({"names": ["v"], "formats": [value.base], "itemsize": layout.step})
        made["key"] = np.frombuffer(read.keys, made.dtype["key"])
        made["value"] = np.frombuffer(read.values, padded).reshape(read.count, *value.shape)["v"]
    return made


def typed(layout: Layout, rows: Rows) -> Rows:
    """Return the same memory with the types of keys and values."""
    return rows.view(layout.dtype)


def keys(layout: Layout, rows: Rows) -> list[Any]:
    """Return the keys as Python values."""
    if layout.keys_are_networks:
        size, whole = layout.key.size, rows["key"].tobytes()
        return [layout.decode_key(whole[at : at + size]) for at in range(0, len(whole), size)]
    return decode_all(layout.key, typed(layout, rows)["key"])


def values(layout: Layout, rows: Rows) -> list[Any]:
    """Return the values as Python values; a `PerCPU` for each key of a per-CPU map."""
    found = typed(layout, rows)["value"]
    if not layout.per_cpu:
        return decode_all(layout.value, found)
    with collector_off():
        flat = iter(decode_all(layout.value, found.reshape(-1, *found.shape[2:])))
        return list(map(PerCPU, zip(*[flat] * layout.cpus, strict=True)))
