"""What kind of program a function of a BCC source is, in the words of ELF sections."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError, UnknownNameError, near_matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TYPES = {
    **dict.fromkeys(("kprobe", "kretprobe", "uprobe", "uretprobe"), "kprobe"),
    **dict.fromkeys(("tracepoint", "tp"), "tracepoint"),
    **dict.fromkeys(("raw_tracepoint", "raw_tp"), "raw_tracepoint"),
    **dict.fromkeys(("tc", "tcx", "classifier"), "sched_cls"),
    **dict.fromkeys(("fentry", "fexit"), "tracing"),
    **{name: name for name in ("xdp", "perf_event", "lsm", "cgroup_skb", "sk_msg", "sk_skb")},
    "socket": "socket_filter",
    "sockops": "sock_ops",
}
"""Program types by the first part of a section."""

PREFIXES = {
    "kprobe__": "kprobe/",
    "kretprobe__": "kretprobe/",
    "raw_tracepoint__": "raw_tracepoint/",
    "kfunc__": "fentry/",
    "kretfunc__": "fexit/",
    "lsm__": "lsm/",
}
"""How names say what a function is attached to."""

CONTEXTS = {
    "pt_regs": "kprobe",
    "xdp_md": "xdp",
    "__sk_buff": "tc",
    "bpf_perf_event_data": "perf_event",
    "bpf_raw_tracepoint_args": "raw_tracepoint",
    "bpf_sock_ops": "sockops",
    "sk_msg_md": "sk_msg",
}
"""What the type of the first argument says."""

TRACEPOINT = re.compile(r"tracepoint__(?P<category>[a-z0-9]+(?:_[a-z0-9]+)*?)__(?P<event>\w+)")


def sections(
    functions: Iterable[str], text: str, given: Mapping[str, str], where: str
) -> dict[str, str]:
    """Return the section of each function: as it is given, or as its name or argument says.

    Raises `UnknownNameError` for one that is given and not there, `LoadError` for a section that
    says no type.
    """
    names = list(functions)
    for name, section in given.items():
        if name not in names:
            raise UnknownNameError(f"{where} has no program {name!r}{near_matches(name, names)}")
        if section.partition("/")[0] not in TYPES:
            raise LoadError(
                f"{where}: program {name!r}: there is no section {section!r} for BCC sources"
                f"{near_matches(section.partition('/')[0], TYPES)}"
            )
    return {name: given.get(name) or _said(name, text) for name in names}


def program_type(section: str) -> str:
    """Return libbpf's name of the program type that a section says."""
    return TYPES[section.partition("/")[0]]


def _said(name: str, text: str) -> str:
    if found := TRACEPOINT.fullmatch(name):
        return f"tracepoint/{found['category']}/{found['event']}"
    for prefix, section in PREFIXES.items():
        if name.startswith(prefix):
            return section + name.removeprefix(prefix).removeprefix("vmlinux__")
    argument = re.search(rf"\b{re.escape(name)}\s*\(\s*(?:const\s+)?struct\s+(\w+)\s*\*", text)
    if argument and (found := TRACEPOINT.fullmatch(argument[1])):
        return f"tracepoint/{found['category']}/{found['event']}"
    return CONTEXTS.get(argument[1], "kprobe") if argument else "kprobe"
