"""kprobe.multi and kprobe.session: many functions of the kernel by a pattern."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys.libbpf_options import KprobeMultiOptions
from pytest_bpf.kernel.sys.tracefs import with_tracefs
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.refusals import target_or_section

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, _: Options) -> Link:
    """Attach to all functions that match ``target`` (``"tcp_v?_*"``), or the section's pattern."""
    pattern = target_or_section(program, target, "a pattern of kernel functions, 'tcp_*'")
    if not program.pointer:
        raise AttachError(
            f"program {program.name!r} ({program.section}) was not loaded from an object of this "
            "process: libbpf looks patterns up for its own programs alone"
        )
    options = KprobeMultiOptions(retprobe=program.section.startswith("kret"))
    call = ("bpf_program__attach_kprobe_multi_opts", pattern.encode(), ctypes.byref(options))
    return with_tracefs(Link.by_libbpf, program, pattern, *call)
