"""Tracepoints, by their number in tracefs."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, near_matches
from pytest_bpf.kernel.sys import perf_event
from pytest_bpf.kernel.sys.tracefs import tracefs, with_tracefs
from pytest_bpf.objects.link.perf_link import perf_link
from pytest_bpf.objects.link.refusals import target_or_section

if TYPE_CHECKING:
    from pytest_bpf.objects.link.link import Link
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable

FIELD = re.compile(r"field:(?:.*\W)?(\w+)(?:\[.*\])?;\s+offset:(\d+);\s+size:(\d+);")
"""A field of a record in its ``format`` file: name, offset and size in bytes."""

SYSCALLS = (
    "; in C it is struct syscall_trace_enter or syscall_trace_exit: the members of struct "
    "trace_event_raw_sys_enter and _sys_exit lie elsewhere on some kernels (-rt)"
)


def attach(program: Attachable, target: Any, options: Options) -> Link:
    """Attach to ``"category:name"``, or the tracepoint in the section."""
    text = target_or_section(program, target, "a tracepoint, 'category:name'")
    category, _, name = text.replace("/", ":").partition(":")
    attributes = perf_event.Attributes(type=perf_event.TRACEPOINT)
    attributes.config = with_tracefs(_number, program, category, name)
    attributes.sample_period = 1
    event = perf_event.open_event(attributes, cpu=min(perf_event.online_cpus()))
    try:
        return perf_link(program, event, f"{category}:{name}", options.cookie)
    except OSError as error:
        if error.errno == errno.EACCES:
            error.detail = with_tracefs(_beyond, category, name)  # type: ignore[attr-defined]
        raise


def _number(program: Attachable, category: str, name: str) -> int:
    folder = tracefs()
    assert folder is not None
    events = folder / "events"
    place = events / category / name / "id"
    if not (category and name) or "/" in name or not place.exists():
        text = f"{category}:{name}" if name else category
        names = [f"{path.parent.parent.name}:{path.parent.name}" for path in events.glob("*/*/id")]
        raise AttachError(
            f"program {program.name!r} ({program.section}): this kernel has no tracepoint "
            f"{text!r}{near_matches(text, names)}"
        )
    return int(place.read_text(encoding="ascii"))


def _beyond(category: str, name: str) -> str:
    """Say why the kernel does not let a program read its context."""
    folder = tracefs()
    assert folder is not None
    text = (folder / "events" / category / name / "format").read_text(encoding="ascii")
    ends = [int(offset) + int(size) for _, offset, size in FIELD.findall(text)]
    more = SYSCALLS if category == "syscalls" else ""
    return (
        f"the program reads its context beyond the {max(ends)} bytes of this tracepoint's "
        f"record{more}"
    )
