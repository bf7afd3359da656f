"""uprobe.multi and uprobe.session: one link for many functions of a binary."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.objects.link.binaries import probe_points
from pytest_bpf.objects.link.link import Link

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

ON_RETURN = 1 << 0
"""``BPF_F_UPROBE_MULTI_RETURN``."""


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to the functions that match a pattern: ``function="SSL_*"``."""
    points = probe_points(program, target, options)
    path = ctypes.create_string_buffer(os.fsencode(points[0].path))
    offsets = (ctypes.c_uint64 * len(points))(*(point.offset for point in points))
    cookies = (ctypes.c_uint64 * len(points))(*(options.cookie for _ in points))
    flags = ON_RETURN if program.section.startswith("uret") else 0
    place = struct.pack(
        "=4Q3I",
        *(ctypes.addressof(path), ctypes.addressof(offsets), 0, ctypes.addressof(cookies)),
        *(len(points), flags, max(options.pid, 0)),
    )
    fd = create_link(program.fd, 0, program.expected_attach_type, options=place)
    name = points[0].name if len(points) == 1 else f"{points[0].path}: {len(points)} functions"
    return Link.owning(fd, program, name)
