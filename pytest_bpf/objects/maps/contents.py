"""What a map had in it at one moment: a read-only mapping, decoded as far as it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError, ValueTypeError
from pytest_bpf.kernel.maps.batches import Content
from pytest_bpf.kernel.values.columns import collector_off
from pytest_bpf.kinds.maps import STARTS_FULL

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from pytest_bpf.objects.maps.layout import ElementLayout

FEW = 500
"""Elements up to which numpy would take longer, its import reckoned in."""


class Contents(Mapping[Any, Any]):  # noqa: PLW1641 (compares by content, so has no hash)
    """A map's elements at one moment: ``[]``, ``in``, ``len``, iteration, ``items``, ``==``.

    Nothing is decoded until it is asked for. `array` is the same as a numpy array.
    """

    def __init__(
        self,
        layout: ElementLayout,
        read: Content | np.ndarray[Any, Any],
        wrap: Callable[[Any], Any] | None = None,
    ) -> None:
        self._layout, self._read, self._wrap = layout, read, wrap
        self._count = read.count if isinstance(read, Content) else len(read)

    @cached_property
    def array(self) -> np.ndarray[Any, Any]:
        """The elements as a structured array with ``key`` and ``value``, of shape ``(n,)``.

        Of a per-CPU map ``value`` has the shape ``(n, possible CPUs)``.
        """
        from pytest_bpf.objects.maps.snapshots import with_types  # noqa: PLC0415 (numpy, when asked for)

        return with_types(self._layout, self._raw)

    def items(self) -> Any:
        """Return (key, value) pairs."""
        with collector_off():
            return list(zip(self._keys(), self.values(), strict=True))

    def values(self) -> Any:
        """Return the values."""
        if self._few:
            values = [self._layout.decode_value(raw) for raw in self._each_value()]
        else:
            from pytest_bpf.objects.maps.snapshots import values as in_bulk  # noqa: PLC0415

            values = in_bulk(self._layout, self._raw)
        return values if self._wrap is None else [self._wrap(value) for value in values]

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) as bytes; of a per-CPU map all CPUs' values at once."""
        return zip(self._each_key(), self._each_value(), strict=True)

    def __getitem__(self, key: Any) -> Any:
        with self._layout.key_bytes(key) as raw:
            at = self._index.get(raw or b"")
        if at is None:
            raise KeyError(key)
        value = self._layout.decode_value(self._value(at))
        return value if self._wrap is None else self._wrap(value)

    def __contains__(self, key: object) -> bool:
        with self._layout.key_bytes(key) as raw:
            return raw in self._index

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys())

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        """Compare with a mapping whose keys and values may be in any form that can be written.

        Elements of an array that it leaves out must be zero, like the members of a struct.
        """
        if not isinstance(other, Mapping):
            return NotImplemented
        elements, pairs = dict(self.items()), list(other.items())
        if self._layout.kind in STARTS_FULL and len(pairs) < len(elements):
            pairs += self._zeros(elements, pairs)
        if len(elements) != len(pairs):
            return False
        for key, value in pairs:
            if key not in elements:
                try:
                    key = self._layout.same_key(key)  # noqa: PLW2901 (the same key, as it is read)
                except (ValueTypeError, MapError):
                    return False
            if key not in elements or not self._layout.equal_values(elements[key], value):
                return False
        return True

    def __repr__(self) -> str:
        return f"<Contents of {self._layout.name}, {self._count} elements>"

    # -- inside ------------------------------------------------------------------------------

    def _zeros(self, elements: Mapping[Any, Any], pairs: list[tuple[Any, Any]]) -> list[Any]:
        """Return the elements that are zero and not among ``pairs``."""
        try:
            present = {self._layout.same_key(key) for key, _ in pairs}
        except (ValueTypeError, MapError):
            return []
        zero = self._layout.decode_value(bytes(self._layout.stride))
        return [(k, v) for k, v in elements.items() if k not in present and v == zero]

    @property
    def _few(self) -> bool:
        return isinstance(self._read, Content) and self._count <= FEW

    @cached_property
    def _raw(self) -> np.ndarray[Any, Any]:
        from pytest_bpf.objects.maps.snapshots import to_rows  # noqa: PLC0415

        if isinstance(self._read, Content):
            return to_rows(self._layout, self._read)
        return self._read

    @cached_property
    def _index(self) -> dict[bytes, int]:
        return {key: at for at, key in enumerate(self._each_key())}

    def _keys(self) -> list[Any]:
        if self._few:
            return [self._layout.decode_key(raw) for raw in self._each_key()]
        from pytest_bpf.objects.maps.snapshots import keys as in_bulk  # noqa: PLC0415

        return in_bulk(self._layout, self._raw)

    def _each_key(self) -> Iterator[bytes]:
        whole = self._read.keys if isinstance(self._read, Content) else self._read["key"].tobytes()
        size = self._layout.key.size
        return (whole[at : at + size] for at in range(0, len(whole), size))

    def _each_value(self) -> Iterator[bytes]:
        return map(self._value, range(self._count))

    def _value(self, at: int) -> bytes:
        """Return the bytes of one value as a look-up gives them, all CPUs' at once."""
        size = self._layout.stride
        if isinstance(self._read, Content):
            return self._read.values[at * size : at * size + size]
        one: np.ndarray[Any, Any] = self._read["value"][at : at + 1]
        if not self._layout.per_cpu:
            return one.tobytes()
        return b"".join(value.tobytes().ljust(self._layout.step, b"\0") for value in one[0])
