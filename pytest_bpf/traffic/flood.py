"""Frames generated inside the kernel: ``BPF_PROG_RUN`` of XDP in live-frame mode (Linux 5.18).

The program that is run says XDP_TX for every frame, which in this mode means "transmit from the
interface of the context". A veth takes such frames only when its peer polls for them (NAPI),
which it does with a native XDP program attached or with GRO on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import struct
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import PrivilegeError, StimulusError, UnavailableError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.ethtool import gro
from pytest_bpf.kernel.sys.libbpf_options import RunOptions
from pytest_bpf.traffic.frames import Tap, tap_pace
from pytest_bpf.traffic.result import TrafficResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.traffic.endpoint import Endpoint
    from pytest_bpf.traffic.pace import Silence

BPF_PROG_TYPE_XDP = 6
XDP_TX = 3
BPF_F_TEST_XDP_LIVE_FRAMES = 2
"""linux/bpf.h."""

TRANSMIT = struct.pack("<BBhi", 0xB7, 0, 0, XDP_TX) + struct.pack("<BBhi", 0x95, 0, 0, 0)
"""``r0 = XDP_TX; exit``."""

BATCH = 64
"""Frames between two flushes: one NAPI poll. Measured on 6.18: 64 fills no ring, 128 loses 4 %
and 256 loses 41 % where the receiving stack is slower than the generator."""


def flood(
    endpoint: Endpoint,
    frame: bytes,
    count: int,
    to: Endpoint | None,
    silence: Silence,
) -> TrafficResult:
    """Let the kernel transmit ``frame`` ``count`` times; see `Traffic.flood`."""
    if not count:
        return TrafficResult(0, 0, 0, 0, 0.0)
    port = endpoint.iface
    with _count_arrivals(to, frame) as tap:
        start = time.perf_counter()
        before = endpoint.run(tx_packets, port.name)
        endpoint.run(generate, port.ifindex, frame, count)
        transmission = time.perf_counter() - start
        accepted = min(endpoint.run(tx_packets, port.name) - before, count)
        if accepted < count / 2:
            raise StimulusError(
                f"{endpoint.name}: {port.name} transmitted {accepted} of {count} frames; its "
                "peer must be up with a native XDP program attached or GRO on (to= turns GRO on)"
            )
        pace = tap_pace(tap, silence)
        pace.finish(accepted)
    received = tap.received if tap else 0
    return TrafficResult(
        sent=count,
        received=received,
        bytes=accepted * len(frame),
        received_bytes=received * len(frame),
        seconds=transmission + (pace.seconds if received else 0.0),
        errors={"ENOBUFS": count - accepted} if accepted < count else {},
    )


def generate(ifindex: int, frame: bytes, count: int) -> None:
    """Run the transmitting program ``count`` times over ``frame``, in this thread's namespace.

    Raises `UnavailableError` without the privilege or before Linux 5.18.
    """
    context = struct.pack("<6I", 0, len(frame), 0, ifindex, 0, 0)
    options = RunOptions(
        data_in=frame,
        data_size_in=len(frame),
        ctx_in=context,
        ctx_size_in=len(context),
        repeat=count,
        flags=BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size=BATCH,
    )
    try:
        program = libbpf.call(
            "bpf_prog_load", BPF_PROG_TYPE_XDP, b"flood", b"GPL", TRANSMIT, len(TRANSMIT) // 8, None
        )
        try:
            libbpf.call("bpf_prog_test_run_opts", program, ctypes.byref(options))
        finally:
            os.close(program)
    except OSError as error:
        raise explain(error, len(frame), count) from error


def explain(error: OSError, size: int, count: int) -> Exception:
    """Return what to raise when generating ``count`` frames of ``size`` bytes failed."""
    release = os.uname().release
    if error.errno in (errno.EPERM, errno.EACCES):
        return PrivilegeError("flood()", "CAP_BPF", "CAP_NET_ADMIN")
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and tuple(map(int, numbers.groups())) < (5, 18):
        return UnavailableError(
            f"flood() needs XDP live frames of Linux 5.18 or later; this is {release}"
        )
    return StimulusError(
        f"{count} frames of {size} bytes cannot be generated: {error.strerror} (a live frame "
        "holds up to one page less its headroom, about 3,500 bytes)"
    )


def tx_packets(ifname: str) -> int:
    """Return how many packets ``ifname`` of this thread's namespace has transmitted."""
    for line in Path("/proc/thread-self/net/dev").read_text("ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == ifname:
            return int(numbers.split()[9])
    raise StimulusError(f"there is no interface {ifname}")


@contextmanager
def _count_arrivals(to: Endpoint | None, frame: bytes) -> Iterator[Tap | None]:
    """Count ``frame`` at ``to``, whose GRO is on meanwhile."""
    if to is None:
        yield None
        return
    name = to.iface.name
    with to.socket(socket.AF_INET, socket.SOCK_DGRAM, 0) as control:
        was_on = gro(control, name)
        tap = Tap(to, name, frame)
        try:
            if not was_on:
                gro(control, name, turn_on=True)
            yield tap
        finally:
            tap.close()
            if not was_on:
                gro(control, name, turn_on=False)
