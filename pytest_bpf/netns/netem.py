"""Delay, loss and rate of an interface: the kernel's netem queue discipline (tc-netem(8)).

netem works on what leaves an interface, so a delay both ways needs it on both ends.
"""

from __future__ import annotations

import errno
from contextlib import closing
from typing import TYPE_CHECKING

from pytest_bpf.errors import PlaceError, UnavailableError
from pytest_bpf.errors.arguments import checked
from pytest_bpf.netns import messages
from pytest_bpf.netns.rtnetlink import RefusedError, RouteSocket

if TYPE_CHECKING:
    from pytest_bpf.netns.interface import Interface

TICK = 64e-9
"""Seconds: netem counts time in these (``PSCHED_SHIFT``)."""

LARGEST = 0xFFFFFFFF


@checked
def impair(
    interface: Interface,
    *,
    delay: float = 0.0,
    jitter: float = 0.0,
    loss: float = 0.0,
    rate: float = 0.0,
    limit: int = 10_000,
) -> None:
    """Delay, lose or slow down what leaves ``interface``; a second call replaces the first.

    ``delay`` and its ``jitter`` are in seconds, ``loss`` is the share that is dropped (0 to 1),
    ``rate`` in bits a second (0: unlimited), ``limit`` the packets that may wait. The delay becomes
    the namespace's ``delay``. Raises `UnavailableError` where the kernel has no netem.
    """
    most = LARGEST * TICK
    for name, value, least, largest in (
        ("delay", delay, 0.0, most),
        ("jitter", jitter, 0.0, delay),
        ("loss", loss, 0.0, 1.0),
        ("rate", rate, 0.0, LARGEST * 8.0),
        ("limit", limit, 1, LARGEST),
    ):
        if not least <= value <= largest:
            raise PlaceError(f"netem's {name} is from {least:g} to {largest:g}, not {value:g}")
    request = messages.netem(
        interface.ifindex,
        delay=round(delay / TICK),
        jitter=round(jitter / TICK),
        loss=round(loss * LARGEST),
        rate=round(rate / 8),
        limit=limit,
    )
    with closing(interface.namespace.run(RouteSocket)) as route:
        try:
            route.send([request])
        except RefusedError as error:
            if error.errno in {errno.ENOENT, errno.EOPNOTSUPP}:
                raise UnavailableError(
                    "this kernel has no netem (CONFIG_NET_SCH_NETEM), so nothing can be delayed, "
                    f"lost or slowed down: {error.strerror}"
                ) from error
            raise PlaceError(
                f"the kernel refused netem on {interface.name!r}: {error.strerror}"
            ) from error
    interface.namespace.delay = delay
