"""What probes are made of: an answer, the smallest program there is, and places to try it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Probe:
    """The answer of a probe: true when the feature is there.

    Otherwise ``reason`` says why it is not, or why that cannot be found out (no privilege);
    it is empty when the kernel simply does not have it.
    """

    available: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.available


AVAILABLE = Probe(available=True)


def unavailable(reason: str = "") -> Probe:
    """Return the answer "no", with its reason."""
    return Probe(available=False, reason=reason)


def status(field: str) -> str:
    """Return a field of this thread's ``/proc/thread-self/status``, or "" when there is none."""
    text = Path("/proc/thread-self/status").read_text(encoding="ascii", errors="replace")
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name == field), "")


def credentials() -> tuple[str, str]:
    """Return what the kernel's answers depend on, of this thread: capabilities and user namespace.

    Both may change while the process runs: by capset(2), setuid(2), unshare(2).
    """
    return status("CapEff"), Path("/proc/thread-self/ns/user").readlink().name
