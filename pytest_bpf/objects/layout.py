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
from pytest_bpf.kernel import elements, libbpf
from pytest_bpf.kernel.btf import Int, Opaque, Struct, Type
from pytest_bpf.kernel.dtypes import dtype
from pytest_bpf.kernel.values import codec
from pytest_bpf.objects.handles import descriptor
from pytest_bpf.objects.percpu import PerCPU

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from pytest_bpf.kernel.info import MapInfo

PER_CPU = frozenset({"percpu_hash", "percpu_array", "lru_percpu_hash", "percpu_cgroup_storage"})
KEYLESS = frozenset({"queue", "stack", "bloom_filter"})
MAPS_OF_MAPS = frozenset({"array_of_maps", "hash_of_maps"})
KEYED_BY_DESCRIPTOR = frozenset({"task_storage", "inode_storage", "cgrp_storage", "sk_storage"})
VALUED_BY_DESCRIPTOR = MAPS_OF_MAPS | {
    *("prog_array", "sockmap", "sockhash", "xskmap", "reuseport_sockarray"),
    *("cgroup_array", "perf_event_array"),
}
INDEXED = frozenset(
    {"array", "percpu_array", "prog_array", "array_of_maps", "devmap", "cpumap", "sockmap"}
    | {"xskmap", "perf_event_array", "cgroup_array", "reuseport_sockarray"}
)


def kind_name(number: int) -> str:
    """Return libbpf's name of a map type, as in ``"percpu_hash"``; its number when it has none."""
    name = libbpf.function("libbpf_bpf_map_type_str")(number)
    return name.decode() if name else str(number)


@dataclass(frozen=True)
class Layout:
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
        what = f"map {self.name!r}, key"
        if self.kind in KEYLESS:
            yield None
        elif self.kind in KEYED_BY_DESCRIPTOR:
            with descriptor(self.kind, key, what) as fd:
                yield fd.to_bytes(self.key.size, sys.byteorder)
        elif self.kind == "lpm_trie":
            yield _prefix_bytes(self.key, key, what)
        else:
            yield codec(self.key).encode(key, what)

    @contextmanager
    def value_bytes(self, value: Any) -> Iterator[bytes]:
        """Yield a value as the kernel takes it; per-CPU values for all CPUs."""
        what = f"map {self.name!r}, value"
        if self.kind in VALUED_BY_DESCRIPTOR and not isinstance(value, (dict, bytes)):
            with descriptor(self.kind, value, what) as fd:
                yield fd.to_bytes(self.value.size, sys.byteorder)
        elif self.per_cpu:
            yield b"".join(self._each_cpu(value, what))
        else:
            yield codec(self.value).encode(self._interface_index(value), what)

    def decode_key(self, raw: bytes) -> Any:
        """Return a key; one of an LPM trie as an IP network where it has the size of one."""
        if self.keys_are_networks:
            return ipaddress.ip_network((raw[4:], *struct.unpack_from("=I", raw)), strict=False)
        return codec(self.key).decode(raw, 0)

    def decode_value(self, raw: bytes) -> Any:
        """Return a value; a `PerCPU` of them for a per-CPU map."""
        decode = codec(self.value).decode
        if self.per_cpu:
            return PerCPU(decode(raw, at) for at in range(0, self.stride, self.step))
        return decode(raw, 0)

    def _each_cpu(self, value: Any, what: str) -> Iterator[bytes]:
        cpus = self.cpus
        each = list(value) if isinstance(value, (PerCPU, list)) else [value] * cpus
        if len(each) != cpus:
            raise MapError(f"{what}: {len(each)} values given, there are {cpus} possible CPUs")
        encode = codec(self.value).encode
        return (
            encode(v, f"{what} of CPU {cpu}").ljust(self.step, b"\0") for cpu, v in enumerate(each)
        )

    def _interface_index(self, value: Any) -> Any:
        """Return what a device map takes for an interface: its index."""
        if not hasattr(value, "ifindex"):
            return value
        if isinstance(self.value, Struct):
            return {self.value.members[0].name: value.ifindex}
        return value.ifindex


def layout(name: str, info: MapInfo, key: Type | None, value: Type | None) -> Layout:
    """Return a map's layout; types that BTF does not give are the kernel's own, else bytes."""
    kind, key_size, value_size = kind_name(info.type), info.key_size, info.value_size
    u32 = Int("__u32", 4)
    if key is None or key.size != key_size:
        key = u32 if kind in INDEXED and key_size == 4 else Opaque("", key_size)
    if value is None or value.size != value_size:
        handle = kind in VALUED_BY_DESCRIPTOR or "devmap" in kind or kind == "cpumap"
        number = u32 if value_size == 4 else Int("__u64", 8)
        value = number if handle and value_size in {4, 8} else Opaque("", value_size)
    return Layout(name, kind, key, value)


def _prefix_bytes(of: Type, value: Any, what: str) -> bytes:
    """Return an LPM trie's key from an `ipaddress` network or address, its text, or its struct.

    The layout is ``struct bpf_lpm_trie_key``: prefix length, then the address in network order.
    """
    if isinstance(value, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
        try:
            value = ipaddress.ip_network(value)
        except ValueError as error:
            raise ValueTypeError(f"{what}: {error}") from None
    if not isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return codec(of).encode(value, what)
    address = value.network_address.packed
    if len(address) + 4 != of.size:
        raise ValueTypeError(
            f"{what}: an IPv{value.version} network has {len(address)} bytes of address, "
            f"this trie's keys have {of.size - 4}"
        )
    return struct.pack("=I", value.prefixlen) + address
