"""What a program is given for one run, as bytes: fixed parts first, then a packet of any length."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_bpf.fuzz.contexts import META, META_WORDS, PREFIX
from pytest_bpf.kernel.layers.buffers import to_bytes
from pytest_bpf.traffic.packets import icmp_frame, tcp_frame, udp_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_bpf.fuzz.contexts import ContextChoice, PacketContext

CLOCKS = {
    5: "bpf_ktime_get_ns",
    125: "bpf_ktime_get_boot_ns",
    160: "bpf_ktime_get_coarse_ns",
    208: "bpf_ktime_get_tai_ns",
}
"""The helpers that read a clock; a part of the input says what it shows."""

PINNED = {
    **CLOCKS,
    7: "bpf_get_prandom_u32",
    14: "bpf_get_current_pid_tgid",
    15: "bpf_get_current_uid_gid",
    80: "bpf_get_current_cgroup_id",
    118: "bpf_jiffies64",
}
"""The helpers that answer what an input says: they take nothing and return a number."""

COMM_HELPER, COMM = 16, 16
"""``bpf_get_current_comm``, and the bytes of a name."""

USUAL = {"clock": 1_000_000}
"""What parts are to begin with, where that is not 0: the clock goes on by a millisecond."""

STIMULUS = "stimulus"
"""The kind of inputs of which a stimulus gets what is not a fixed part."""

ALIGNED = 8
"""Where parts begin, and what follows them, so that numbers in them lie as they do in memory."""

CLOCK_BITS = 36
"""Between two inputs the clock goes on by less than 2 to the power of this many nanoseconds."""


@dataclass(frozen=True)
class Part:
    """A part of an input that has a fixed size: its name, and where it lies."""

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class Form:
    """How the bytes of an input are laid out.

    ``fixed`` is how many bytes the fixed parts take. ``kind`` is what the rest is: a ``"packet"``
    of ``least`` to ``most`` bytes, or ``"arguments"``, a ``"context"`` or what a ``"stimulus"``
    gets, of ``least`` bytes. ``context`` is that of the packet, where parts of the input are
    members of it, or where the program writes to it.
    """

    parts: tuple[Part, ...]
    fixed: int
    kind: str
    least: int
    most: int
    context: PacketContext | None = None

    @cached_property
    def own_parts(self) -> tuple[Part, ...]:
        """The fixed parts that are no members of a packet's context."""
        return tuple(part for part in self.parts if not part.name.startswith(PREFIX))

    def rest(self, data: bytes) -> bytes:
        """Return the packet, the arguments or the context of an input."""
        return data[self.fixed :]

    def fit(self, data: bytearray) -> bytes:
        """Return an input of a length that is allowed: longer ones are cut, shorter ones filled."""
        low, high = self.fixed + self.least, self.fixed + self.most
        if len(data) < low:
            data += bytes(low - len(data))
        return bytes(data[:high])

    def show(self, data: bytes) -> str:
        """Return an input as text, a line a part."""
        lines = [
            f"{part.name}: {_number(data[part.start : part.start + part.size])}"
            for part in self.own_parts
        ]
        if self.context is not None:
            lines += [
                f"{PREFIX}{name}: {value.hex() or 'none' if isinstance(value, bytes) else value}"
                for name, value in self.context.members(data).items()
            ]
        rest = self.rest(data)
        if self.kind == "packet":
            lines += [f"packet, {len(rest)} bytes: {rest.hex()}", *_layers(rest)]
        elif self.kind == "arguments" and rest:
            words = struct.unpack(f"={len(rest) // 8}Q", rest[: len(rest) // 8 * 8])
            lines.append("arguments: " + ", ".join(map(hex, words)))
        elif rest:
            lines.append(f"{self.kind}: {rest.hex()}")
        return "\n".join(lines) or "nothing"


def form(
    kind: str,
    rest: tuple[int, int],
    parts: Mapping[str, int],
    context: ContextChoice | None = None,
) -> Form:
    """Return the form of inputs with such parts, by name and size, and with such a context."""
    placed, at = [], 0
    members = context.members() if context is not None else {}
    for name, size in {**parts, **members}.items():
        placed.append(Part(name, at, size))
        at = -(-(at + size) // ALIGNED) * ALIGNED
    if context is None:
        return Form(tuple(placed), at, kind, *rest)
    places = {part.name: (part.start, part.size) for part in placed if part.name in members}
    return Form(tuple(placed), at, kind, *rest, context.placed(places, at))


def seeds(shape: Form, corpus: Iterable[bytes] = ()) -> list[bytes]:
    """Return the inputs that a search begins with: zeros, and packets of the usual protocols."""
    usual = bytearray(shape.fixed)
    for part in shape.parts:
        number = USUAL.get(part.name, 0)
        usual[part.start : part.start + part.size] = number.to_bytes(part.size, "little")
    fixed = bytes(usual)
    start = [shape.fit(bytearray(fixed))]
    if shape.kind == "packet":
        ordinary = (
            udp_frame(payload=bytes(16)),
            tcp_frame(),
            icmp_frame(),
            udp_frame(ipv6=True, payload=bytes(16)),
            tcp_frame(ipv6=True),
            icmp_frame(ipv6=True),
            udp_frame(vlan=5),
        )
        start += [shape.fit(bytearray(fixed + frame)) for frame in ordinary]
    if shape.context is not None and META in shape.context.places:
        at = shape.context.places[META][0]
        full = fixed[:at] + bytes([META_WORDS]) + fixed[at + 1 :]
        start.append(shape.fit(bytearray(full + udp_frame(payload=bytes(16)))))
    given = (to_bytes(entry, "an input of the corpus") for entry in corpus)
    return start + [shape.fit(bytearray(fixed + entry)) for entry in given]


def _number(raw: bytes) -> str:
    """Return a part as a number, or as the elements of an array that are not 0."""
    if len(raw) <= 8:
        return str(int.from_bytes(raw, "little"))
    if len(raw) == COMM:
        return repr(raw.partition(b"\0")[0])
    words: Sequence[int] = struct.unpack(f"={len(raw) // 8}Q", raw[: len(raw) // 8 * 8])
    some = [f"[{at}] = {word}" for at, word in enumerate(words) if word]
    return ", ".join(some[:8]) + (f" and {len(some) - 8} more" if len(some) > 8 else "") or "zeros"


def _layers(packet: bytes) -> list[str]:
    from pytest_bpf.kernel.layers.packet import Packet  # noqa: PLC0415 (only a difference shows layers)

    return [f"  {line}" for line in str(Packet(packet)).splitlines()]
