"""kprobe.multi and kprobe.session: many functions of the kernel by a pattern."""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys.bpf_syscall import create_link
from pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.refusals import target_or_section

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

ON_RETURN = 1 << 0
"""``BPF_F_KPROBE_MULTI_RETURN``."""


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to all functions that match ``target`` (``"tcp_v?_*"``), or the section's pattern."""
    pattern = target_or_section(program, target, "a pattern of kernel functions, 'tcp_*'")
    names = _matches(pattern) if set(pattern) & set("*?[") else [pattern]
    if not names:
        raise AttachError(
            f"program {program.name!r} ({program.section}): no function of this kernel that can be "
            f"probed matches {pattern!r}",
            errno.ENOENT,
        )
    symbols = (ctypes.c_char_p * len(names))(*(name.encode() for name in names))
    cookies = (ctypes.c_uint64 * len(names))(*(options.cookie for _ in names))
    flags = ON_RETURN if program.section.startswith("kret") else 0
    place = struct.pack(
        "=2I3Q", flags, len(names), ctypes.addressof(symbols), 0, ctypes.addressof(cookies)
    )
    fd = create_link(program.fd, 0, program.expected_attach_type, options=place)
    return Link.owning(fd, program, pattern)


def _matches(pattern: str) -> list[str]:
    """Return the functions that match, of those that can be traced and have a symbol."""
    traceable = {line.split()[0] for line in with_tracefs(_traceable).splitlines()}
    with Path("/proc/kallsyms").open(encoding="ascii", errors="replace") as lines:
        symbols = {line.split(None, 3)[2] for line in lines}
    return sorted(fnmatch.filter(traceable & symbols, pattern))


def _traceable() -> str:
    folder = tracefs()
    path = (folder or Path("/sys/kernel/tracing")) / "available_filter_functions"
    return path.read_text(encoding="ascii", errors="replace")
