"""Many keys and values as the kernel takes them: bytes, end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import ValueTypeError
from pytest_bpf.kernel.dtypes import dtype
from pytest_bpf.kernel.values import spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.layout import Layout


def in_two(layout: Layout, elements: Any, values: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return keys and values apart, as many of one as of the other.

    ``elements`` are the keys where ``values`` are given, else an array as `Map.snapshot` has it, a
    mapping, or pairs.
    """
    if values is None:
        if _is_array(elements) and elements.dtype.names == ("key", "value"):
            return elements["key"], elements["value"]
        pairs = list(elements.items() if hasattr(elements, "keys") else elements)
        return [key for key, _ in pairs], [value for _, value in pairs]
    keys, values = _sized(elements), _sized(values)
    if len(keys) != len(values):
        raise ValueTypeError(
            f"map {layout.name!r}: {len(keys)} keys and {len(values)} values given"
        )
    return keys, values


def keys_as_bytes(layout: Layout, keys: Sequence[Any]) -> bytes:
    """Return keys end to end; `ValueTypeError` for one that does not fit."""
    if _is_array(keys) and not layout.keys_are_networks:
        made = _cast(layout.key, keys, f"map {layout.name!r}, keys")
        if made is not None:
            return made.tobytes()
    return b"".join(_key(layout, key) for key in keys)


def values_as_bytes(layout: Layout, values: Sequence[Any]) -> bytes:
    """Return values end to end, in a per-CPU map one for each CPU, or the same for all."""
    if _is_array(values):
        made = _cast(layout.value, values, f"map {layout.name!r}, values")
        if made is not None and (spread := _spread(layout, made)) is not None:
            return spread.tobytes()
        if layout.per_cpu:
            values = [list(value) if getattr(value, "ndim", 0) else value for value in values]
    return b"".join(_value(layout, value) for value in values)


def _key(layout: Layout, key: Any) -> bytes:
    with layout.key_bytes(key) as raw:
        return raw or b""


def _value(layout: Layout, value: Any) -> bytes:
    with layout.value_bytes(value) as raw:
        return raw


def _sized(of: Iterable[Any]) -> Sequence[Any]:
    return of if hasattr(of, "__len__") and hasattr(of, "__getitem__") else list(of)  # type: ignore[return-value]


def _is_array(of: object) -> bool:
    return hasattr(of, "dtype") and hasattr(of, "tobytes")


def _cast(of: Type, array: Any, what: str) -> np.ndarray[Any, Any] | None:
    """Return an array in the memory layout of a type; None where each value has to be looked at."""
    import numpy as np  # noqa: PLC0415 (who comes here has it)

    target = dtype(of)
    if array.dtype == target.base:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iu" or target.kind not in "iu" or not array.size:
        return None
    least, most, limits = int(array.min()), int(array.max()), np.iinfo(target)
    if least < limits.min or most > limits.max:
        wrong = least if least < limits.min else most
        raise ValueTypeError(f"{what}: {wrong} does not fit {spelled(of)}")
    cast: np.ndarray[Any, Any] = array.astype(target)
    return cast


def _spread(layout: Layout, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return values with what lies between those of CPUs; None when there are not so many CPUs."""
    import numpy as np  # noqa: PLC0415

    inner = dtype(layout.value).shape
    outer = values.shape[: values.ndim - len(inner)]
    if values.shape[len(outer) :] != inner or not outer:
        return None
    if not layout.per_cpu:
        return values if len(outer) == 1 else None
    if outer[1:] not in {(), (layout.cpus,)}:
        return None
    padded = np.dtype({"names": ["v"], "formats": [dtype(layout.value)], "itemsize": layout.step})
    made = np.zeros((len(values), layout.cpus), padded)
    made["v"] = values if len(outer) > 1 else values[:, np.newaxis]
    return made
