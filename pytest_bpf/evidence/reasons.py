"""Dropped packets by the kernel's reason, counted by a program of ours on ``skb:kfree_skb``."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.compile import compile_source
from pytest_bpf.errors import BpfError, UnavailableError, VerifierError
from pytest_bpf.evidence.counters import cookie_of
from pytest_bpf.evidence.counts import XDP
from pytest_bpf.kernel.drop_reasons import reason_names
from pytest_bpf.objects import Object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

SOURCE = Path(__file__).with_name("reasons.bpf.c")
UNSPECIFIED = "NOT_SPECIFIED"

GENERIC_XDP = frozenset({"do_xdp_generic", "netif_receive_generic_xdp", "bpf_prog_run_generic_xdp"})
"""The kernel functions in which generic XDP drops; which one is the compiler's choice."""

NATIVE_XDP = frozenset({"veth_xdp_rcv_skb", "veth_xdp_rcv", "veth_poll"})
"""Those in which native XDP drops whole packets on a veth, which counts them itself."""

ARRIVED = frozenset(
    {
        *("packet_rcv", "tpacket_rcv", "packet_rcv_spkt"),  # a copy, for one who only looks on
        "ping_rcv",  # an echo reply; a raw socket that waits for it has got a copy
        *("skb_queue_purge", "skb_queue_purge_reason"),  # unread, in a socket that is closed
    }
)
"""The kernel functions that free packets which reached their end: nothing was dropped there."""


class ReasonCounter:
    """The program, attached; it counts inside of `counting`, in every namespace but our own.

    To be closed, or used by ``with``. Where it cannot be attached nothing is counted, and
    ``unavailable`` says why. Keep one: loading takes 30 ms, attaching it again after a detach up to
    15 ms (the kernel waits for RCU), while to begin counting takes 0.2 ms.
    """

    def __init__(self) -> None:
        self._refusal = ""
        self._object: Object | None = None
        self._users = 0
        try:
            self._object = _load()
        except UnavailableError as error:
            self._refusal = str(error)
        except BpfError as error:
            self._refusal = f"this kernel refuses the program that counts them: {error}"

    @property
    def unavailable(self) -> str:
        """Why the figures are missing or not whole; empty when they are good."""
        if self._object is None or not self._object.globals["uncounted"]:
            return self._refusal
        entries = self._object.maps["drops"].max_entries
        return (
            f"packets were dropped in more than {entries} ways (namespace, reason, place in the "
            "kernel), and some are missing; look at a shorter time"
        )

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count, from 0 unless somebody counts already."""
        if self._object is None:
            yield
            return
        if not self._users:
            self._object.maps["drops"].clear()
            self._object.globals["uncounted"] = 0
            self._object.globals["counting"] = True
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._object.globals["counting"] = self._users > 0

    def read(self, namespaces: Mapping[int, str]) -> dict[tuple[str, str, str], int]:
        """Return packets by (namespace, reason, kernel function), of these cookies' namespaces.

        Drops by generic XDP have the reason ``"XDP"``; those by native XDP, which the driver
        counts, are left out, and so is what is freed in `ARRIVED`.
        """
        found: Counter[tuple[str, str, str]] = Counter()
        if self._object is None:
            return found
        names = reason_names()
        for drop, seen in self._object.maps["drops"].items():
            function = seen.function.partition(".")[0]
            reason = names.get(drop.reason, f"{drop.reason:#x}")
            if drop.namespace not in namespaces or not reason or function in ARRIVED:
                continue
            if reason in {UNSPECIFIED, XDP} and function in NATIVE_XDP:
                continue
            if reason == UNSPECIFIED and function in GENERIC_XDP:
                reason = XDP
            found[namespaces[drop.namespace], reason, function] += seen.packets
        return dict(found)

    def close(self) -> None:
        """Unload the program; a second time does nothing."""
        if self._object is not None:
            self._object.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load() -> Object:
    """Load and attach the program; raises `UnavailableError` for what is missing."""
    reason_names()
    built = compile_source(SOURCE).object
    home = cookie_of()
    try:
        loaded = Object.load(built, globals={"home": home}, trusted=True, source=SOURCE)
    except VerifierError:  # the tracepoint has no fourth argument
        settings = {"home": home, "has_rx_sk": False}
        loaded = Object.load(built, globals=settings, trusted=True, source=SOURCE)
    try:
        loaded.attach()
    except BaseException:
        loaded.close()
        raise
    return loaded
