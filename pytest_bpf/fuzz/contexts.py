"""Contexts of packets as parts of inputs: the members that the kernel takes for a test run.

The members and their places are those of ``struct __sk_buff`` and ``struct xdp_md`` in
``uapi/linux/bpf.h``. A number that the kernel would refuse, such as that of an interface which is
not there, becomes one that it takes.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs import load
from pytest_bpf.kernel.programs.runner import REFUSED, PacketRunner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_bpf.kernel.programs.context_use import ContextUse

PREFIX = "ctx->"
"""How the names of parts begin that are members of a context."""

SKB, XDP = "__sk_buff", "xdp_md"
SIZES = {SKB: 192, XDP: 24}

Places = dict[str, tuple[int, int]]
"""The offsets and sizes of members, by name."""

GIVEN: dict[str, Places] = {
    SKB: {
        "mark": (8, 4),
        "priority": (32, 4),
        "ingress_ifindex": (36, 4),
        "ifindex": (40, 4),
        **{f"cb[{at}]": (48 + 4 * at, 4) for at in range(5)},
        "tstamp": (152, 8),
        "wire_len": (160, 4),
        "gso_segs": (164, 4),
        "gso_size": (176, 4),
        "hwtstamp": (184, 8),
    },
    XDP: {"ingress_ifindex": (12, 4), "rx_queue_index": (16, 4), "data_meta": (8, 4)},
}
"""The members that may be part of an input, by the context's struct."""

FIXED: dict[str, Places] = {
    SKB: {
        "queue_mapping": (12, 4),
        "vlan_present": (20, 4),
        "vlan_tci": (24, 4),
        "vlan_proto": (28, 4),
        "tc_index": (44, 4),
        "hash": (68, 4),
        "tc_classid": (72, 4),
        "napi_id": (84, 4),
    },
    XDP: {"egress_ifindex": (20, 4)},
}
"""Those that are the same in each test run, whatever the packet is."""

META, META_WORDS = "data_meta", 8
"""The metadata before a packet: a word whose first byte says how many follow, and these."""

META_SIZE = 4 * (1 + META_WORDS)
MOST_WIRE, MOST_SEGMENTS = 65_536, 65_535
QUEUES = 64
"""The most queues of an interface that are tried."""

FRAME = bytes(64)
INTERFACES = frozenset({"ifindex", "ingress_ifindex", "rx_queue_index"})
"""The members that say where a packet comes from."""


@dataclass(frozen=True)
class PacketContext:
    """How parts of an input become the context of its packet.

    ``places`` are, by the member's name, where it lies in an input, its size, and where in the
    context; ``fixed`` is where the packet begins. ``interfaces`` are the pairs of an interface and
    a queue that the kernel takes. ``constant`` are members that programs read and that are the
    same for each input.
    """

    kind: str
    places: Mapping[str, tuple[int, int, int]]
    fixed: int
    interfaces: Sequence[tuple[int, int]]
    constant: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of the context."""
        return SIZES[self.kind]

    def given(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the packet of an input, and its context, as the kernel takes both."""
        packet, context = data[self.fixed :], bytearray(self.size)
        for start, size, offset in self.places.values():
            context[offset : offset + size] = data[start : start + size]
        if self.kind == XDP:
            meta = self.meta(data)
            index, queue = self._interface(*struct.unpack_from("=II", context, 12))
            numbers = (len(meta), len(meta) + len(packet), 0, index, queue, 0)
            return meta + packet, struct.pack("=6I", *numbers)
        (index,) = struct.unpack_from("=I", context, 40)
        wire, segments = struct.unpack_from("=II", context, 160)
        if wire and not len(packet) <= wire <= MOST_WIRE:
            wire = len(packet) + wire % (MOST_WIRE + 1 - len(packet))
        struct.pack_into("=I", context, 40, self._interface(index, 0)[0])
        struct.pack_into("=II", context, 160, wire, segments % (MOST_SEGMENTS + 1))
        return packet, bytes(context)

    def meta(self, data: bytes) -> bytes:
        """Return the metadata of an input."""
        if META not in self.places:
            return b""
        start, size, _ = self.places[META]
        words = data[start] % (META_WORDS + 1)
        return data[start + 4 : start + size][: 4 * words]

    def _interface(self, index: int, queue: int) -> tuple[int, int]:
        if (index, queue) in self.interfaces:
            return index, queue
        return self.interfaces[(31 * index + queue) % len(self.interfaces)]

    def members(self, data: bytes) -> dict[str, int | bytes]:
        """Return the members of an input's context, as the program is given them."""
        _, context = self.given(data)
        result: dict[str, int | bytes] = {}
        for name, (_, size, offset) in self.places.items():
            if name == META:
                result[name] = self.meta(data)
            else:
                result[name] = int.from_bytes(context[offset : offset + size], "little")
        return result

    def members_out(self, context: bytes) -> dict[str, int]:
        """Return the members of a context that a run gave back."""
        places = {} if self.kind == XDP else GIVEN[SKB]
        return {
            name: int.from_bytes(context[offset : offset + size], "little")
            for name, (offset, size) in places.items()
        }

    def packet_begin(self, context: bytes) -> int:
        """Return where the packet begins behind its metadata, by a context that a run gave back."""
        return int.from_bytes(context[:4], "little") if self.kind == XDP else 0

    def notes(self) -> list[str]:
        """Return what is not as free as other parts of inputs."""
        notes = []
        name = "ifindex" if self.kind == SKB else "ingress_ifindex"
        if name in self.places:
            indexes = ", ".join(str(index) for index in sorted({i for i, _ in self.interfaces}))
            notes.append(f"{PREFIX}{name} is one of the interfaces here: {indexes}")
        if self.constant:
            names = ", ".join(PREFIX + name for name in self.constant)
            notes.append(f"the same for every input, as no test run can set it: {names}")
        return notes


@dataclass(frozen=True)
class ContextChoice:
    """Which members of a packet's context are parts of inputs.

    ``constant`` are those that programs read and that no test run can set.
    """

    kind: str
    names: tuple[str, ...]
    constant: tuple[str, ...]
    interfaces: Sequence[tuple[int, int]]

    def members(self) -> dict[str, int]:
        """Return the sizes of the parts by their names."""
        places = GIVEN[self.kind]
        return {
            PREFIX + name: META_SIZE if name == META else places[name][1] for name in self.names
        }

    def placed(self, parts: Mapping[str, tuple[int, int]], fixed: int) -> PacketContext:
        """Return the context whose parts lie at these places, with their sizes."""
        places = {name: (*parts[PREFIX + name], GIVEN[self.kind][name][0]) for name in self.names}
        return PacketContext(self.kind, places, fixed, self.interfaces, self.constant)


def choose_context(
    program_type: str, kind: str, uses: Sequence[ContextUse], *, changes: bool
) -> ContextChoice | None:
    """Return which members of a context programs are given; None where it does not matter.

    That is so where they read none that can be given and ``changes`` is False: nothing else than
    what they write into it themselves changes it.
    """
    wanted = _members_read(kind, uses, GIVEN)
    fixed = _members_read(kind, uses, FIXED)
    changes = kind == SKB and (changes or any(use.writes for use in uses))
    if not wanted and not fixed and not changes:
        return None
    names = _probe_members(program_type, kind, wanted)
    fixed += [name for name in wanted if name not in names]
    places = _probe_interfaces(program_type, kind) if {*names} & INTERFACES else [(0, 0)]
    return ContextChoice(kind, tuple(names), tuple(fixed), places)


def _members_read(kind: str, uses: Iterable[ContextUse], among: Mapping[str, Places]) -> list[str]:
    """Return the members of a struct that programs read, in the order of the table."""
    reads = {place for use in uses for place in use.reads}
    return [
        name
        for name, (start, size) in among[kind].items()
        if any(offset < start + size and start < offset + width for offset, width in reads)
    ]


def _probe_members(program_type: str, kind: str, names: Iterable[str]) -> list[str]:
    """Return the members of which this kernel takes a number in a test run of such a program."""
    result = []
    with load.program(program_type) as fd:
        run = PacketRunner([fd], len(FRAME), SIZES[kind]).run_with_context
        for name in names:
            context = bytearray(SIZES[kind])
            if kind == XDP:
                length = 4 if name == META else 0
                struct.pack_into("=II", context, 0, length, len(FRAME))
            if name == "wire_len":
                struct.pack_into("=I", context, 160, len(FRAME))
            elif name != META and name not in INTERFACES:
                context[GIVEN[kind][name][0]] = 1
            if run(FRAME, bytes(context))[0] is not REFUSED:
                result.append(name)
    return result


def _probe_interfaces(program_type: str, kind: str) -> list[tuple[int, int]]:
    """Return the interfaces of this namespace and their queues, which a test run may come from.

    0 stands for the loopback interface, which is there by its own number.
    """
    found = []
    with load.program(program_type) as fd:
        run = PacketRunner([fd], len(FRAME), SIZES[kind]).run_with_context
        for index, _ in socket.if_nameindex():
            for queue in range(QUEUES if kind == XDP else 1):
                context = bytearray(SIZES[kind])
                if kind == XDP:
                    struct.pack_into("=6I", context, 0, 0, len(FRAME), 0, index, queue, 0)
                else:
                    struct.pack_into("=I", context, 40, index)
                if run(FRAME, bytes(context))[0] is REFUSED:
                    break
                found.append((index, queue))
    return found or [(0, 0)]
