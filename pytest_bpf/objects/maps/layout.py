"""How a kind of map lays its keys and values out, and what they are in Python."""

from __future__ import annotations

import ipaddress
import struct
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import MapError, ValueTypeError
from pytest_bpf.kernel.btf import Array, Int, Opaque, Struct, Type
from pytest_bpf.kernel.btf.enums import map_type_name
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kernel.values.addresses import prefix
from pytest_bpf.kernel.values.codec import codec, describe
from pytest_bpf.kernel.values.dtypes import dtype
from pytest_bpf.kinds.maps import (
    INDEXED,
    KEYED_BY_DESCRIPTOR,
    KEYLESS,
    PER_CPU,
    VALUED_BY_DESCRIPTOR,
)
from pytest_bpf.objects.maps import devices
from pytest_bpf.objects.maps.handles import descriptor
from pytest_bpf.objects.maps.percpu import PerCPU

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from pytest_bpf.kernel.sys.info import MapInfo


@dataclass(frozen=True)
class ElementLayout:
    """One map's kind, types and sizes (in bytes), and the conversions that follow from them."""

    name: str
    kind: str
    key: Type
    value: Type

    @property
    def per_cpu(self) -> bool:
        """Whether each key has one value per possible CPU."""
        return self.kind in PER_CPU

    @property
    def cpus(self) -> int:
        """How many values a key has; 0 where they are no tuple of one for each possible CPU."""
        return elements.possible_cpus() if self.per_cpu else 0

    @cached_property
    def keys_are_networks(self) -> bool:
        """Whether the keys are prefixes of IP addresses, as far as their size tells."""
        data = self.key.size - 4
        if isinstance(self.key, Struct):
            data = sum(member.type.size for member in list(self.key.flat_members())[1:])
        return self.kind == "lpm_trie" and self.key.size == 4 + data and data in {4, 16}

    @property
    def holds_stacks(self) -> bool:
        """Whether the values are addresses of stacks, and not build ids and offsets."""
        return self.kind == "stack_trace" and self.value == stack_type(self.value.size)

    @cached_property
    def step(self) -> int:
        """Bytes from one CPU's value to the next: per-CPU values are rounded up to 8."""
        return (self.value.size + 7) // 8 * 8 if self.per_cpu else self.value.size

    @cached_property
    def stride(self) -> int:
        """Bytes that the kernel copies for one key's value, of all CPUs together."""
        return self.step * (self.cpus or 1)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The elements of a snapshot: ``key`` and ``value``, the latter one for each CPU."""
        import numpy as np  # noqa: PLC0415 (90 ms, and only for whoever asks for arrays)

        cpus = (self.cpus,) if self.per_cpu else ()
        return np.dtype([("key", dtype(self.key)), ("value", dtype(self.value), cpus)])

    @contextmanager
    def key_bytes(self, key: Any) -> Iterator[bytes | None]:
        """Yield a key as the kernel takes it; what had to be opened for it is closed after."""
        label = f"map {self.name!r}, key"
        if self.kind in KEYLESS:
            yield None
        elif self.kind in KEYED_BY_DESCRIPTOR:
            with descriptor(self.kind, key, label) as fd:
                yield fd.to_bytes(self.key.size, sys.byteorder)
        elif self.kind == "lpm_trie":
            yield _prefix_bytes(self.key, key, label)
        else:
            yield codec(self.key).encode(key, label)

    @contextmanager
    def value_bytes(self, value: Any) -> Iterator[bytes]:
        """Yield a value as the kernel takes it; per-CPU values for all CPUs."""
        label = f"map {self.name!r}, value"
        if self.kind in VALUED_BY_DESCRIPTOR and not isinstance(value, (dict, bytes)):
            with descriptor(self.kind, value, label) as fd:
                yield fd.to_bytes(self.value.size, sys.byteorder)
        elif self.kind in devices.KINDS and not isinstance(value, bytes):
            with devices.device_bytes(self.kind, self.value, value, label) as raw:
                yield raw
        elif self.per_cpu:
            yield b"".join(self._each_cpu(value, label))
        else:
            yield codec(self.value).encode(getattr(value, "ifindex", value), label)

    def decode_key(self, raw: bytes) -> Any:
        """Return a key; one of an LPM trie as an IP network where it has the size of one."""
        if self.keys_are_networks:
            return prefix(raw[4:], *struct.unpack_from("=I", raw))
        return codec(self.key).decode(raw, 0)

    def decode_value(self, raw: bytes) -> Any:
        """Return a value; a `PerCPU` of them for a per-CPU map."""
        decode = codec(self.value).decode
        if self.per_cpu:
            return PerCPU(decode(raw, at) for at in range(0, self.stride, self.step))
        return decode(raw, 0)

    def same_key(self, key: Any) -> Any:
        """Return a key as it is read; `ValueTypeError` for one that does not fit."""
        with self.key_bytes(key) as raw:
            return key if self.kind in KEYED_BY_DESCRIPTOR else self.decode_key(raw or b"")

    def equal_values(self, value: Any, other: Any) -> bool:
        """Say whether ``value``, which was read, is what ``other`` would be if it were written."""
        if value == other:
            return True
        if self.kind in VALUED_BY_DESCRIPTOR | devices.KINDS:
            return False  # a descriptor that is written is another number than what is read
        try:
            with self.value_bytes(other) as raw:
                return bool(value == self.decode_value(raw))
        except (ValueTypeError, MapError):
            return False

    def _each_cpu(self, value: Any, label: str) -> Iterator[bytes]:
        cpus = self.cpus
        each = list(value) if self._is_by_cpu(value) else [value] * cpus
        if len(each) != cpus:
            raise MapError(f"{label}: {len(each)} values given, there are {cpus} possible CPUs")
        if isinstance(value, dict) and value and all(isinstance(key, int) for key in value):
            raise ValueTypeError(
                f"{label}: a list has one value for each of the {cpus} possible CPUs, "
                f"not {describe(value)}"
            )
        encode = codec(self.value).encode
        return (
            encode(v, f"{label} of CPU {cpu}").ljust(self.step, b"\0") for cpu, v in enumerate(each)
        )

    def _is_by_cpu(self, value: Any) -> bool:
        """Say whether a value is one for each CPU: a list, and what can be nothing else."""
        if isinstance(value, (PerCPU, list)):
            return True
        compound = isinstance(self.value, (Array, Struct, Opaque))
        return not compound and (isinstance(value, tuple) or getattr(value, "ndim", 0) == 1)

    def runner(self, value: Any) -> devices.Run:
        """Return what calls a function where ``value`` means what it says: in its namespace."""
        return devices.runner(value) if self.kind in devices.KINDS else devices.call_here


BUILD_ID = 1 << 5
"""``BPF_F_STACK_BUILD_ID``."""


def stack_type(size: int) -> Array:
    """Return the type of a stack trace's value: as many addresses as there is room for."""
    return Array(Int("__u64", 8), size // 8)


def layout(name: str, info: MapInfo, key: Type | None, value: Type | None) -> ElementLayout:
    """Return a map's layout; types that BTF does not give are the kernel's own, else bytes."""
    kind, key_size, value_size = map_type_name(info.type), info.key_size, info.value_size
    u32 = Int("__u32", 4)
    if key is None or key.size != key_size:
        key = u32 if kind in INDEXED and key_size == 4 else Opaque("", key_size)
    if value is None or value.size != value_size:
        build_ids = kind == "stack_trace" and info.map_flags & BUILD_ID
        if kind == "stack_trace" and not build_ids:
            return ElementLayout(name, kind, key, stack_type(value_size))
        number = u32 if value_size == 4 else Int("__u64", 8)
        value = Opaque("", value_size)
        if kind in VALUED_BY_DESCRIPTOR and value_size in {4, 8}:
            value = number
        if kind in devices.KINDS and value_size in {4, 8}:
            value = devices.value_type(kind, value_size)
    return ElementLayout(name, kind, key, value)


def _prefix_bytes(c_type: Type, value: Any, label: str) -> bytes:
    """Return an LPM trie's key from an `ipaddress` network or address, its text, or its struct.

    The layout is ``struct bpf_lpm_trie_key``: prefix length, then the address in network order.
    """
    if isinstance(value, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
        try:
            value = ipaddress.ip_network(value)
        except ValueError as error:
            if c_type.size - 4 not in {4, 16}:
                return codec(c_type).encode(value, label)  # whose error says what it takes
            raise ValueTypeError(f"{label}: {error}") from None
    if not isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return codec(c_type).encode(value, label)
    address = value.network_address.packed
    if len(address) + 4 != c_type.size:
        raise ValueTypeError(
            f"{label}: an IPv{value.version} network has {len(address)} bytes of address, "
            f"this trie's keys have {c_type.size - 4}"
        )
    return struct.pack("=I", value.prefixlen) + address
