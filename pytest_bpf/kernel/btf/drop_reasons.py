"""Why the kernel drops a packet: ``enum skb_drop_reason`` of the running kernel."""

from __future__ import annotations

import re
from functools import cache

from pytest_bpf.errors import UnavailableError, UnknownNameError
from pytest_bpf.kernel.btf import Enumeration, vmlinux

PREFIX = "SKB_DROP_REASON_"


@cache
def reason_names() -> dict[int, str]:
    """Return the kernel's drop reasons by number, and "" for what is none (``SKB_CONSUMED``).

    Raises `UnavailableError` before Linux 5.17, or without BTF.
    """
    try:
        reasons = vmlinux().find("enum skb_drop_reason")
    except UnknownNameError:
        raise UnavailableError("the kernel tells no drop reasons before Linux 5.17") from None
    assert isinstance(reasons, Enumeration)
    return {
        number: name.removeprefix(PREFIX) if name.startswith(PREFIX) else ""
        for name, number in reasons.members
    }


def plain_name(symbol: str) -> str:
    """Return a function's name of a symbol as the kernel prints it (``%ps``).

    Without what the compiler adds to it, and without the module that it belongs to.

    >>> [plain_name(symbol) for symbol in ("veth_poll [veth]", "do_xdp_generic.part.0", "f+0x1c")]
    ['veth_poll', 'do_xdp_generic', 'f']
    """
    return re.split(r"[ .+]", symbol, maxsplit=1)[0]
