"""A frame that an interface received or sent."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_bpf.kernel.layers.packet import Packet


@dataclass(frozen=True, eq=False)
class CapturedFrame:
    """A frame as it passed the interface; it equals its bytes, and another one with the same bytes.

    ``data`` are its bytes, of ``length`` in all (fewer are there where it was dropped before it
    came here). ``time_ns`` are nanoseconds since 1970, ``outgoing`` says that it left.
    ``partial_checksum``: the checksum is left to hardware, as of a socket's packet on a veth.
    ``drop`` is the kernel's reason for dropping it, ``"NO_SOCKET"``, and ``function`` the place in
    the kernel; both are empty where it was not dropped, or where nobody looked.
    """

    data: bytes
    time_ns: int
    outgoing: bool
    length: int
    partial_checksum: bool = False
    drop: str = ""
    function: str = ""
    first: str = "eth"

    @property
    def packet(self) -> Packet:
        """The frame by layers."""
        return Packet(self.data, self.first)

    def __bytes__(self) -> bytes:
        return self.data

    def __eq__(self, other: object) -> bool:
        if isinstance(other, CapturedFrame):
            return self.data == other.data
        return self.packet == other

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        fate = f", dropped: {self.drop} in {self.function}" if self.drop else ""
        return f"<{'out' if self.outgoing else 'in'}: {self.packet!r}{fate}>"
