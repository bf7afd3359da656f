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


class NetkitAction(IntEnum):
    """``enum netkit_action`` of ``uapi/linux/if_link.h``."""

    NETKIT_NEXT = -1
    NETKIT_PASS = 0
    NETKIT_DROP = 2
    NETKIT_REDIRECT = 7


class NetfilterVerdict(IntEnum):
    """``NF_*`` of ``uapi/linux/netfilter.h``, of those that programs return."""

    NF_DROP, NF_ACCEPT = range(2)


class RetCode(IntEnum):
    """``enum bpf_ret_code`` of ``uapi/linux/bpf.h``: programs of routes, and flow dissectors."""

    BPF_OK = 0
    BPF_DROP = 2
    BPF_REDIRECT = 7
    BPF_LWT_REROUTE = 128
    BPF_FLOW_DISSECTOR_CONTINUE = 129


ACTIONS: dict[str, type[IntEnum]] = {
    "xdp": XdpAction,
    "sched_cls": TcAction,
    "sched_act": TcAction,
    "sk_skb": SkAction,
    "sk_msg": SkAction,
    "sk_lookup": SkAction,
    "sk_reuseport": SkAction,
    "netfilter": NetfilterVerdict,
    "lwt_in": RetCode,
    "lwt_out": RetCode,
    "lwt_xmit": RetCode,
    "lwt_seg6local": RetCode,
    "flow_dissector": RetCode,
    "netkit": NetkitAction,
}
"""The enumeration of each type of program, or kind, whose return values have names."""

_NAMES = {kind: {int(member): member for member in enum} for kind, enum in ACTIONS.items()}


def actions(program_type: str, kind: str = "") -> dict[int, int]:
    """Return what a program may return by name: the members by the unsigned 32-bit values.

    >>> actions("sched_cls")[4294967295]
    <TcAction.TC_ACT_UNSPEC: -1>
    """
    names = _NAMES.get(kind) or _NAMES.get(program_type) or {}
    return {number % (1 << 32): member for number, member in names.items()}


def action(program_type: str, value: int, kind: str = "") -> int:
    """Return a program's 32-bit return value, signed, and as a member of its enumeration.

    That of its ``kind`` goes before that of its type.

    >>> action("sched_cls", 4294967295)
    <TcAction.TC_ACT_UNSPEC: -1>
    >>> action("sched_cls", 4294967295, "netkit")
    <NetkitAction.NETKIT_NEXT: -1>
    >>> action("raw_tracepoint", 4294967294)
    -2
    """
    number = signed(value)
    names = _NAMES.get(kind) or _NAMES.get(program_type)
    return names.get(number, number) if names else number


def signed(value: int) -> int:
    """Return an unsigned number of 32 bits as a signed one."""
    return value - (1 << 32) if value >= 1 << 31 else value
