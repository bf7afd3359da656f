"""Captures of the interfaces of a test's places, from their making on, for who asks for them.

A capture costs each interface a packet socket, and the end of one a grace period of the kernel: so
they are an option of their own.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.layers.text import headline
from pytest_bpf.plugin.artifacts.evidence import Passed
from pytest_bpf.plugin.artifacts.looking import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.netns import Namespace
    from pytest_bpf.traffic.capture.capture import Capture
    from pytest_bpf.traffic.capture.frames import CapturedFrame


def _in_one_line(frame: CapturedFrame) -> str:
    """Return direction, layers and what is wrong, but a checksum that is left to hardware."""
    faults = [
        fault
        for fault in frame.packet.faults
        if not (frame.partial_checksum and fault.startswith(("udp.checksum", "tcp.checksum")))
    ]
    wrong = f" ({faults[0]})" if faults else ""
    return f"{'out' if frame.outgoing else 'in'}: {headline(frame.packet)}{wrong}"


def _last(name: str, capture: Capture, count: int) -> Iterator[Passed]:
    if frames := capture.frames:
        yield Passed(name, tuple(map(_in_one_line, frames[-count:])), capture.passed)


def _pcapng(capture: Capture) -> bytes:
    """Return the frames as a file; nothing where none passed."""
    if not capture.frames:
        return b""
    with tempfile.TemporaryDirectory() as folder:
        return capture.write(Path(folder, "packets")).read_bytes()


RING, MOST = 1 << 19, 2 << 20
"""Bytes of the kernel's ring, and of the frames that are kept, for each interface."""

CAPTURES = pytest.StashKey["Captures"]()
"""The captures of an item."""


class Captures:
    """What passes the interfaces of namespaces; `close` it before they are."""

    def __init__(self) -> None:
        self._captures: dict[str, Capture] = {}
        self.notes: list[str] = []

    def add(self, namespace: Namespace) -> None:
        """Capture what passes all interfaces that a namespace has now, lo too."""
        for interface in (*namespace.interfaces.values(), namespace.lo):
            name, again = f"{namespace.name}.{interface.name}", 2
            while name in self._captures:
                name, again = f"{namespace.name}.{interface.name}.{again}", again + 1
            try:
                self._captures[name] = interface.capture(ring=RING, most=MOST)
            except (BpfError, OSError) as error:
                self.notes.append(f"packets of {name} could not be captured: {error}")

    def files(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield a pcapng file for each interface: its name, and what makes it."""
        for name, capture in self._captures.items():
            yield f"packets/{name}.pcapng", partial(_pcapng, capture)

    def last(self, count: int) -> list[Passed]:
        """Return the last packets of each interface, and how many passed."""
        rows = []
        for name, capture in self._captures.items():
            rows += read(f"packets of {name}", _last(name, capture, count), self._note)
            if lost := capture.lost:
                self.notes.append(
                    f"{lost} of {capture.passed} packets of {name} are not kept: there was no "
                    "room for them"
                )
        return rows

    def _note(self, what: str, error: Exception) -> None:
        self.notes.append(f"{what} could not be read: {error}")

    def close(self) -> None:
        """End them."""
        for capture in self._captures.values():
            with suppress(BpfError, OSError):
                capture.close()
        self._captures.clear()
