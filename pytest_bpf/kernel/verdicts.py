"""What packet programs return, by the kernel's names."""

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
