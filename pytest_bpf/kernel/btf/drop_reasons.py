"""Why the kernel drops a packet: ``enum skb_drop_reason`` of the running kernel."""

from __future__ import annotations

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
