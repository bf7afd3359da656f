"""Many keys and values as the kernel takes them: bytes, end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import ValueTypeError
from pytest_bpf.kernel.values.codec import c_name, describe
from pytest_bpf.kernel.values.dtypes import dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.maps.layout import ElementLayout


def split_elements(
    layout: ElementLayout, elements: Any, values: Any
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return keys and values apart, as many of one as of the other.

    ``elements`` are the keys where ``values`` are given, else an array as `Map.snapshot` has it, a
    mapping, or pairs.
    """
    if values is None:
        if _is_array(elements) and elements.dtype.names == ("key", "value"):
            return elements["key"], elements["value"]
        pairs = _pairs(layout, elements)
        return [key for key, _ in pairs], [value for _, value in pairs]
    keys, values = to_list(layout, "keys", elements), to_list(layout, "values", values)
    if len(keys) != len(values):
        raise ValueTypeError(
            f"map {layout.name!r}: {len(keys)} keys and {len(values)} values given"
        )
    return keys, values


def keys_as_bytes(layout: ElementLayout, keys: Sequence[Any]) -> bytes:
    """Return keys end to end; `ValueTypeError` for one that does not fit."""
    if _is_array(keys) and (_is_of_structs(keys) or not layout.keys_are_networks):
        array = _cast(layout.key, keys, f"map {layout.name!r}, keys")
        if array is not None:
            return array.tobytes()
    return b"".join(_key(layout, key) for key in keys)


def values_as_bytes(layout: ElementLayout, values: Sequence[Any]) -> bytes:
    """Return values end to end, in a per-CPU map one for each CPU, or the same for all."""
    if _is_array(values):
        array = _cast(layout.value, values, f"map {layout.name!r}, values")
        if array is not None and (spread := _spread(layout, array)) is not None:
            return spread.tobytes()
        if layout.per_cpu:
            values = [list(value) if getattr(value, "ndim", 0) else value for value in values]
    return b"".join(_value(layout, value) for value in values)


def _key(layout: ElementLayout, key: Any) -> bytes:
    with layout.key_bytes(key) as raw:
        return raw or b""


def _value(layout: ElementLayout, value: Any) -> bytes:
    with layout.value_bytes(value) as raw:
        return raw


def _pairs(layout: ElementLayout, elements: Any) -> list[Any]:
    if hasattr(elements, "keys") and hasattr(elements, "items"):
        return list(elements.items())
    kind = "a mapping or pairs of key and value"
    if isinstance(elements, (str, bytes, bytearray)) or not hasattr(elements, "__iter__"):
        raise ValueTypeError(
            f"map {layout.name!r}: elements must be {kind}, not {describe(elements)}"
        )
    pairs = []
    for at, pair in enumerate(elements):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueTypeError(
                f"map {layout.name!r}: element {at} is {describe(pair)}, "
                "not a pair of key and value"
            )
        pairs.append(pair)
    return pairs


def to_list(layout: ElementLayout, name: str, values: Any) -> Sequence[Any]:
    """Return the values of an iterable; `ValueTypeError` for what is none."""
    if isinstance(values, (str, bytes, bytearray)) or not hasattr(values, "__iter__"):
        raise ValueTypeError(
            f"map {layout.name!r}: {name} must be an iterable, not {describe(values)}"
        )
    sequence = hasattr(values, "__len__") and hasattr(values, "__getitem__")
    return values if sequence and not hasattr(values, "keys") else list(values)


def _is_array(c_type: object) -> bool:
    return hasattr(c_type, "dtype") and hasattr(c_type, "tobytes")


def _is_of_structs(array: Any) -> bool:
    return array.dtype.names is not None


def _cast(c_type: Type, array: Any, label: str) -> np.ndarray[Any, Any] | None:
    """Return an array in the memory layout of a type; None where each value has to be looked at."""
    import numpy as np  # noqa: PLC0415 (who comes here has it)

    target = dtype(c_type)
    if array.dtype == target.base:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iu" or target.kind not in "iu" or not array.size:
        return None
    least, most, limits = int(array.min()), int(array.max()), np.iinfo(target)
    if least < limits.min or most > limits.max:
        wrong = least if least < limits.min else most
        raise ValueTypeError(f"{label}: {wrong} does not fit {c_name(c_type)}")
    cast: np.ndarray[Any, Any] = array.astype(target)
    return cast


def _spread(layout: ElementLayout, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
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
    array = np.zeros((len(values), layout.cpus), padded)
    array["v"] = values if len(outer) > 1 else values[:, np.newaxis]
    return array
