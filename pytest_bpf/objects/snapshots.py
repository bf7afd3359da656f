"""A whole map as one numpy structured array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.kernel.dtypes import dtype
from pytest_bpf.kernel.elements import possible_cpus

if TYPE_CHECKING:
    from pytest_bpf.objects.layout import Layout


def as_array(layout: Layout, keys: bytes, values: bytes, count: int) -> np.ndarray[Any, Any]:
    """Return ``count`` elements as an array with the fields ``key`` and ``value``.

    They are copied as bytes, padding included, and given their types after.
    """
    key, value = dtype(layout.key), dtype(layout.value)
    cpus = (possible_cpus(),) if layout.per_cpu else ()
    padded = np.dtype({"names": ["v"], "formats": [f"V{value.itemsize}"], "itemsize": layout.step})
    made = np.empty(count, [("key", f"V{key.itemsize}"), ("value", f"V{value.itemsize}", cpus)])
    if count:
        made["key"] = np.frombuffer(keys, f"V{key.itemsize}")
        made["value"] = np.frombuffer(values, padded).reshape(count, *cpus)["v"]
    return made.view([("key", key), ("value", value, cpus)])
