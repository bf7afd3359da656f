"""kprobes and kretprobes: functions of the kernel."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, near_matches
from pytest_bpf.kernel.sys import perf_event
from pytest_bpf.objects.link.binaries import split_offset
from pytest_bpf.objects.link.perf_link import perf_link
from pytest_bpf.objects.link.refusals import target_or_section

if TYPE_CHECKING:
    from pytest_bpf.objects.link.link import Link
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to the function ``target``, or the one in the section."""
    function = target_or_section(program, target, "a kernel function")
    name, offset = split_offset(program, function)
    at = offset + options.offset
    on_return = program.section.startswith("kret")
    try:
        event = perf_event.open_dynamic("kprobe", name.encode(), at, on_return=on_return)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        raise AttachError(
            f"program {program.name!r} ({program.section}): this kernel has no function {name!r} "
            f"to probe{near_matches(name, _functions())}",
            errno.ENOENT,
        ) from None
    return perf_link(program, event, f"{name}+{at:#x}" if at else name, options.cookie)


def _functions() -> set[str]:
    try:
        lines = Path("/proc/kallsyms").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return {line.split()[2] for line in lines if line.split()[1] in "tT"}
