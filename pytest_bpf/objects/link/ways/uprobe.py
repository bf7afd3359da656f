"""uprobes and uretprobes: functions of binaries."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pytest_bpf.kernel.sys import perf_event
from pytest_bpf.objects.link.binaries import probe_point
from pytest_bpf.objects.link.perf_link import perf_link

if TYPE_CHECKING:
    from pytest_bpf.objects.link.link import Link
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to a function of a binary, in one process or in all."""
    point = probe_point(program, target, options)
    on_return = program.section.startswith(("uret", "kret"))
    path = os.fsencode(point.path)
    event = perf_event.open_dynamic(
        "uprobe", path, point.offset, on_return=on_return, pid=options.pid
    )
    return perf_link(program, event, point.name, options.cookie)
