"""Samples: programs on perf events."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys.perf_event import online_cpus, open_cpu_clock
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.perf_link import perf_link
from pytest_bpf.objects.link.targets import DescriptorTarget, target_name

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to a perf event, or sample at ``frequency``: a process, a CPU, or every CPU."""
    if target is not None:
        if not isinstance(target, (int, DescriptorTarget)):
            raise AttachError(
                f"program {program.name!r} (perf_event) attaches to a perf event's descriptor, "
                f"not to {target_name(target)}"
            )
        fd = os.dup(target if isinstance(target, int) else target.fileno())
        return perf_link(program, fd, f"perf event {fd}", options.cookie)
    everywhere = options.pid < 0 and options.cpu < 0
    links: list[Link] = []
    try:
        for cpu in online_cpus() if everywhere else [options.cpu]:
            fd = open_cpu_clock(options.frequency, pid=options.pid, cpu=cpu)
            of = f"of process {options.pid}" if options.pid >= 0 else ""
            on = f"on CPU {cpu}" if cpu >= 0 else ""
            name = " ".join(filter(None, (f"{options.frequency} Hz", of, on)))
            links.append(perf_link(program, fd, name, options.cookie))
    except BaseException:
        for link in links:
            link.detach()
        raise
    if not everywhere:
        return links[0]

    def undo() -> None:
        for link in links:
            link.detach()

    return Link(program.name, f"{options.frequency} Hz on all CPUs", undo, fd=links[0].fd)
