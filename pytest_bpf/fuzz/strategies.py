"""Strategies of hypothesis for programs: packets, contexts, values of C types, contents of maps.

>>> from hypothesis import given
>>> from pytest_bpf.fuzz.strategies import packets, put_back

hypothesis comes with ``pip install "pytest-bpf[fuzz]"``.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import ValueTypeError, with_article
from pytest_bpf.fuzz.state import READABLE, State
from pytest_bpf.kernel.btf import Array, Enumeration, Int, Struct
from pytest_bpf.kernel.values.codec import codec
from pytest_bpf.kinds.maps import map_kind
from pytest_bpf.traffic.packets import icmp_frame, tcp_frame, udp_frame

try:
    from hypothesis import strategies as st
except ImportError:
    raise ImportError('strategies need hypothesis: pip install "pytest-bpf[fuzz]"') from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypothesis.strategies import DrawFn, SearchStrategy

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects import Map, Object, Program

EDGES = (0, 1, 53, 80, 443, 1023, 1024, 8080, 32767, 32768, 65534, 65535)
"""Ports at which rules begin or end."""

MEMBERS = {
    "xdp": (),
    "sched_cls": ("mark", "priority", "cb", "tstamp"),
    "sched_act": ("mark", "priority", "cb", "tstamp"),
    "cgroup_skb": ("mark", "priority", "cb", "tstamp"),
    "socket_filter": ("mark", "priority", "cb", "tstamp"),
}
"""The members of a context that the kernel takes any value for, by type of program."""

VXLAN = 4789


def packets(
    *, damaged: bool = True, tunnels: bool = True, most_payload: int = 64
) -> SearchStrategy[bytes]:
    """Return frames: UDP, TCP and ICMP over IPv4 or IPv6, with VLAN tags, options and fragments.

    With ``tunnels`` some of them stand in VXLAN or in IP. With ``damaged`` some are cut off, or
    have a length, a version or any other byte wrong. They shrink to a short, whole UDP packet.
    """
    frames: SearchStrategy[bytes] = _whole_frame(most_payload)
    if tunnels:
        frames = st.one_of(frames, frames, frames.map(_in_vxlan), frames.map(_in_ip))
    return _damaged_frame(frames) if damaged else frames


@st.composite
def _whole_frame(draw: DrawFn, most_payload: int) -> bytes:
    ports = st.one_of(st.sampled_from(EDGES), st.integers(0, 65535))
    common: dict[str, Any] = {
        "ttl": draw(st.one_of(st.sampled_from((64, 0, 1, 255)), st.integers(0, 255))),
        "tos": draw(st.one_of(st.just(0), st.integers(0, 255))),
        "payload": draw(st.binary(max_size=most_payload)),
        "ipv6": draw(st.booleans()),
        "vlan": draw(st.one_of(st.none(), st.integers(0, 4095))),
    }
    kind = draw(st.sampled_from(("udp", "tcp", "icmp")))
    if kind == "udp":
        frame = udp_frame(sport=draw(ports), dport=draw(ports), **common)
    elif kind == "tcp":
        flags = draw(st.integers(0, 255))
        frame = tcp_frame(sport=draw(ports), dport=draw(ports), flags=flags, **common)
    else:
        frame = icmp_frame(sequence=draw(st.integers(0, 65535)), **common)
    if not common["ipv6"] and draw(st.integers(0, 3)) == 3:
        frame = _with_options(frame, draw(st.integers(1, 10)))
    if not common["ipv6"] and draw(st.integers(0, 7)) == 7:
        frame = _fragment(frame, draw(st.integers(0, 0x3FFF)))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        frame = frame[:12] + struct.pack("!HH", 0x88A8, draw(st.integers(0, 4095))) + frame[12:]
    return frame


def _ip_at(frame: bytes) -> int:
    """Return where the IPv4 header begins."""
    at = 12
    while frame[at : at + 2] in {b"\x81\x00", b"\x88\xa8"}:
        at += 4
    return at + 2


def _rewrite(frame: bytes, at: int, header: bytearray) -> bytes:
    """Return the frame with another IPv4 header of that many words, its checksum right."""
    old = (frame[at] & 15) * 4
    header[2:4] = struct.pack("!H", len(frame) - at - old + len(header))
    header[10:12] = b"\0\0"
    words = struct.unpack(f"!{len(header) // 2}H", header)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = struct.pack("!H", ~total & 0xFFFF)
    return frame[:at] + bytes(header) + frame[at + old :]


def _with_options(frame: bytes, words: int) -> bytes:
    at = _ip_at(frame)
    header = bytearray(frame[at : at + 20] + b"\x01" * (4 * words - 1) + b"\0")
    header[0] = 0x40 | 5 + words
    return _rewrite(frame, at, header)


def _fragment(frame: bytes, offset_and_more: int) -> bytes:
    at = _ip_at(frame)
    header = bytearray(frame[at : at + (frame[at] & 15) * 4])
    header[6:8] = struct.pack("!H", offset_and_more)
    return _rewrite(frame, at, header)


def _in_vxlan(frame: bytes) -> bytes:
    return udp_frame(dport=VXLAN, payload=struct.pack("!II", 0x08000000, 7 << 8) + frame)


def _in_ip(frame: bytes) -> bytes:
    """Return the packet of a frame in another IPv4 packet (protocol 4, or 41 for IPv6)."""
    at = _ip_at(frame)
    protocol = 41 if frame[at] >> 4 == 6 else 4
    outer = udp_frame()
    header = bytearray(outer[14:34])
    header[9] = protocol
    return _rewrite(outer[:34] + frame[at:], 14, header)


@st.composite
def _damaged_frame(draw: DrawFn, frames: SearchStrategy[bytes]) -> bytes:
    frame = bytearray(draw(frames))
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2, 4)))):
        at = draw(st.integers(12, len(frame) - 1))
        frame[at] = draw(st.integers(0, 255))
    if draw(st.integers(0, 3)) == 3:
        del frame[draw(st.integers(14, len(frame))) :]
    return bytes(frame)


def values(c_type: Type) -> SearchStrategy[Any]:
    """Return values of a C type, as a map or a variable of that type gives them.

    Members of a struct are drawn one by one, with the ends of their ranges more often.
    """
    codec_of = codec(c_type)
    return _raw(c_type).map(lambda raw: codec_of.decode(raw, 0))


def _raw(c_type: Type) -> SearchStrategy[bytes]:
    """Return the bytes of values of a C type."""
    if isinstance(c_type, Enumeration):
        numbers = [value % 256**c_type.size for _, value in c_type.members] or [0]
        return st.sampled_from(numbers).map(_to_bytes(c_type.size))
    if isinstance(c_type, Int):
        top = 1 if c_type.boolean else 256**c_type.size - 1
        edges = sorted({0, 1, top // 2, top // 2 + 1, top} if top > 1 else {0, 1})
        return st.one_of(st.integers(0, top), st.sampled_from(edges)).map(_to_bytes(c_type.size))
    if isinstance(c_type, Array) and 0 < c_type.count <= 16 and c_type.element.size > 1:
        return st.tuples(*[_raw(c_type.element)] * c_type.count).map(b"".join)
    if isinstance(c_type, Struct) and c_type.members and not c_type.union:
        members = [m for m in c_type.members if not m.bit_size and m.type.size]
        parts = st.tuples(*(_raw(member.type) for member in members))
        places = [member.bit_offset // 8 for member in members]
        return parts.map(_placed(c_type.size, places))
    return st.binary(min_size=c_type.size, max_size=c_type.size)


def _to_bytes(size: int) -> Callable[[int], bytes]:
    return lambda number: number.to_bytes(size, "little")


def _placed(size: int, places: list[int]) -> Callable[[tuple[bytes, ...]], bytes]:
    def place(parts: tuple[bytes, ...]) -> bytes:
        whole = bytearray(size)
        for at, part in zip(places, parts, strict=True):
            whole[at : at + len(part)] = part
        return bytes(whole)

    return place


def map_contents(source: Map, *, most: int = 16) -> SearchStrategy[dict[Any, Any]]:
    """Return contents for a map of plain keys and values, of up to ``most`` elements.

    Write one by ``map.update(content)``. Raises `ValueTypeError` for other kinds of maps.
    """
    kind = map_kind(source.type)
    key, value = source.layout.key, source.layout.value
    if source.type not in READABLE or kind.per_cpu or source.type == "lpm_trie":
        raise ValueTypeError(
            f"map {source.name!r} is {with_article(source.type)}: "
            "contents are drawn for hashes and arrays"
        )
    keys = st.integers(0, source.max_entries - 1) if kind.indexed else values(key)
    return st.dictionaries(keys, values(value), max_size=min(most, source.max_entries))


def contexts(program: Program) -> SearchStrategy[Any]:
    """Return contexts for ``program.test_run(packet, context)``, by BTF.

    A raw tracepoint gets 12 arguments, a syscall program its struct, a packet program the members
    that the kernel takes any value for; `ValueTypeError` for others.
    """
    mode = program.kind.test_run
    if mode == "arguments":
        return st.tuples(*[st.integers(0, 2**64 - 1)] * 12)
    own = program.context_type
    if mode == "context" and own is not None and own.size:
        return values(own)
    if program.type not in MEMBERS or not isinstance(own, Struct):
        raise ValueTypeError(
            f"program {program.name!r} ({program.type}): no contexts are drawn for it; pass yours"
        )
    members = {m.name: m.type for m in own.flat_members() if m.name in MEMBERS[program.type]}
    return st.fixed_dictionaries({}, optional={n: values(t) for n, t in members.items()})


@contextmanager
def put_back(obj: Object) -> Iterator[Object]:
    """Put the maps and global variables of an object back at the end of a ``with`` block.

    It takes microseconds for small maps, so each example of ``@given`` may begin alike. Maps that
    cannot be read whole (queues, maps of maps, of sockets, of devices) are left as they are.
    """
    state = State(obj, events=False)
    try:
        before = state.read()
        try:
            yield obj
        finally:
            state.write(before)
    finally:
        state.close()
