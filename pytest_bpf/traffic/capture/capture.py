"""What passes an interface, from the beginning of the capture to its end."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_bpf.errors import BpfError, StimulusError
from pytest_bpf.traffic.capture.blocks import CHECKSUM_NOT_READY, columns, directions
from pytest_bpf.traffic.capture.frames import CapturedFrame
from pytest_bpf.traffic.capture.ring import Ring

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from typing_extensions import Self

    from pytest_bpf.kernel.layers.packet import Packet
    from pytest_bpf.traffic.capture.fates import Fates
    from pytest_bpf.traffic.capture.packet_socket import Port, Sockets

DIRECTIONS = ("both", "in", "out")
RING, MOST = 16 << 20, 512 << 20
"""Bytes of the ring, and of what is kept, unless others are asked for."""

ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
"""linux/if_arp.h: frames of other hardware begin with IP."""


class Capture:
    """The frames that an interface received and sent, those that XDP passed on among them.

    It begins when it is made, and ends with `close` or the ``with``; what was captured stays.
    ``direction`` is "both", "in" or "out". ``ring`` and ``most`` are bytes: of the kernel's ring,
    and of what is kept; what does not fit is counted as `lost`. With ``drops`` the frames know the
    kernel's reason for dropping them, and `untold` says how many reasons were lost. With ``path``
    they are written there at the end.
    """

    def __init__(
        self,
        place: Sockets,
        interface: Port,
        path: str | os.PathLike[str] | None = None,
        *,
        direction: str = "both",
        drops: bool = False,
        ring: int = RING,
        most: int = MOST,
    ) -> None:
        if direction not in DIRECTIONS:
            raise StimulusError(
                f"the direction of a capture is {' or '.join(DIRECTIONS)}, not {direction!r}"
            )
        for noun, size in (("ring", ring), ("most", most)):
            if isinstance(size, bool) or not isinstance(size, int) or not 1 << 16 <= size < 1 << 31:
                raise StimulusError(f"{noun} is {size!r} bytes; it is from 64 KiB to 2 GiB")
        self.name = interface.name
        self.path = _file(path) if path is not None else None
        self._fates: Fates | None = None
        self._untold: list[Any] = []
        self.untold = 0
        self._frames: list[CapturedFrame] = []
        self._decoded = 0
        with ExitStack() as stack:
            if drops:
                from pytest_bpf.traffic.capture.fates import Fates  # noqa: PLC0415 - by its first user

                self._fates = Fates(place, interface.ifindex)
                stack.callback(self._fates.close)
            self._ring = Ring(place, interface.name, direction, ring, most)
            stack.callback(self._ring.close)
            hardware = self._ring.hardware
            self._first = "eth" if hardware in {ARPHRD_ETHER, ARPHRD_LOOPBACK} else "ip"
            self._stack = stack.pop_all()
        self._open = True
        self._end = weakref.finalize(self, self._stack.close)
        self._end.atexit = False

    def __repr__(self) -> str:
        lost = f", {self.lost} lost" if self.lost else ""
        return f"<Capture of {self.name}: {len(self)} frames{lost}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Return how many frames are here."""
        self._ring.wait()
        return self._ring.passed - self._ring.lost

    def __iter__(self) -> Iterator[CapturedFrame]:
        return iter(self.frames)

    def __getitem__(self, at: int) -> CapturedFrame:
        return self.frames[at]

    @property
    def lost(self) -> int:
        """How many frames passed and are not here, because the ring was full."""
        return self._ring.lost

    @property
    def frames(self) -> list[CapturedFrame]:
        """All frames that have passed so far, in order."""
        self._ring.wait()
        for block in self._ring.blocks[self._decoded :]:
            self._frames += _decode(block, self._first)
            self._decoded += 1
        if self._fates is not None:
            if self._open:
                self._untold += self._fates.read()
                self.untold = self._fates.untold
            self._fates.judge(self._frames, self._untold, self._first)
            self._untold = []
        return list(self._frames)

    @property
    def packets(self) -> list[Packet]:
        """The same by layers."""
        return [frame.packet for frame in self.frames]

    @property
    def times(self) -> Any:
        """When each frame passed, in nanoseconds since 1970: an array of numpy."""
        return self._column(lambda each: each.times, np.int64)

    @property
    def lengths(self) -> Any:
        """The bytes of each frame: an array of numpy."""
        return self._column(lambda each: each.headers["len"], np.uint32)

    def _column(self, read: Any, kind: Any) -> Any:
        self._ring.wait()
        parts = [read(columns(block)) for block in self._ring.blocks]
        return np.concatenate(parts).astype(kind) if parts else np.empty(0, kind)

    @property
    def passed(self) -> int:
        """How many frames passed so far, without waiting for them to be here."""
        return self._ring.passed

    def wait(self, count: int, timeout: float = 5.0) -> None:
        """Wait until ``count`` frames have passed; raise `StimulusError` when they do not come."""
        self._ring.wait(count, timeout)
        if self._ring.passed < count:
            raise StimulusError(
                f"{self.name}: {self._ring.passed} of {count} frames passed within {timeout} s"
            )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the frames as pcapng, which Wireshark opens; return the path."""
        from pytest_bpf.traffic.capture import pcapng  # noqa: PLC0415 - by its first user

        target = Path(path)
        try:
            pcapng.write(target, self.frames, self.name, self.lost)
        except OSError as error:
            raise BpfError(f"the capture of {self.name} cannot be written: {error}") from error
        return target

    def close(self) -> None:
        """End the capture; a second time does nothing."""
        if not self._open:
            return
        try:
            self._ring.close()
            if self._fates is not None:
                self._untold += self._fates.read()
                self.untold = self._fates.untold
        finally:
            self._open = False
            self._end()
        if self.path is not None:
            self.write(self.path)


def _file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be written; raise `StimulusError` before the capture."""
    file = Path(path)
    if file.is_dir() or not file.parent.is_dir():
        why = "that is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise StimulusError(f"a capture cannot be written to {file}: {why}")
    return file


def _decode(block: bytes, first: str) -> Iterator[CapturedFrame]:
    each = columns(block)
    partial = (each.headers["status"] & CHECKSUM_NOT_READY).astype(bool).tolist()
    rows = zip(each.raw(), each.times.tolist(), directions(each.headers), partial, strict=True)
    for data, time_ns, outgoing, unready in rows:
        kind = first
        if first == "ip" and data[:1] and data[0] >> 4 == 6:
            kind = "ipv6"
        yield CapturedFrame(data, time_ns, outgoing, len(data), unready, first=kind)
