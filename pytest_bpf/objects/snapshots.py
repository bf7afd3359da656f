"""A whole map as one numpy structured array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.kernel.dtypes import dtype
from pytest_bpf.kernel.elements import possible_cpus

if TYPE_CHECKING:
    from pytest_bpf.objects.layout import Layout


def as_array(layout: Layout, keys: bytes, values: bytes, count: int) -> np.ndarray[Any, Any]:
    """Return ``count`` elements as an array with the fields ``key`` and ``value``."""
    key, value = dtype(layout.key), dtype(layout.value)
    shape = (count, possible_cpus()) if layout.per_cpu else (count,)
    padded = np.dtype({"names": ["v"], "formats": [value], "itemsize": layout.step})
    made = np.empty(count, dtype=[("key", key), ("value", value, shape[1:])])
    made["key"] = np.frombuffer(keys, key, count)
    made["value"] = np.frombuffer(values, padded).reshape(shape)["v"] if count else made["value"]
    return made
