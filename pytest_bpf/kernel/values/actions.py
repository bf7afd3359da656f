"""What programs return, by the kernel's names."""

from __future__ import annotations

from enum import IntEnum


class XdpAction(IntEnum):
    """``enum xdp_action`` of ``uapi/linux/bpf.h``."""

    XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)


class TcAction(IntEnum):
    """``TC_ACT_*`` of ``uapi/linux/pkt_cls.h``, of those that programs return."""

    TC_ACT_UNSPEC = -1
    TC_ACT_OK = 0
    TC_ACT_RECLASSIFY = 1
    TC_ACT_SHOT = 2
    TC_ACT_PIPE = 3
    TC_ACT_STOLEN = 4
    TC_ACT_QUEUED = 5
    TC_ACT_REPEAT = 6
    TC_ACT_REDIRECT = 7
    TC_ACT_TRAP = 8


class SkAction(IntEnum):
    """``enum sk_action`` of ``uapi/linux/bpf.h``: programs that choose or filter for sockets."""

    SK_DROP, SK_PASS = range(2)


ACTIONS: dict[str, type[IntEnum]] = {
    "xdp": XdpAction,
    "sched_cls": TcAction,
    "sched_act": TcAction,
    "sk_skb": SkAction,
    "sk_msg": SkAction,
    "sk_lookup": SkAction,
    "sk_reuseport": SkAction,
}
"""The enumeration of each type of program whose return values have names."""

_NAMES = {kind: {int(member): member for member in enum} for kind, enum in ACTIONS.items()}


def action(program_type: str, value: int) -> int:
    """Return a program's 32-bit return value, signed, and as a member of its enumeration.

    >>> action("sched_cls", 4294967295)
    <TcAction.TC_ACT_UNSPEC: -1>
    >>> action("raw_tracepoint", 4294967294)
    -2
    """
    number = value - (1 << 32) if value >= 1 << 31 else value
    names = _NAMES.get(program_type)
    return names.get(number, number) if names else number
