"""What a guest's kernel is told (``/proc/sys/kernel``): to say what hangs, and what it allows."""

from __future__ import annotations

PATIENCE = 60
"""Seconds after which a machine that gives no sign of life hangs, if nothing else is asked for."""

LONGEST_WATCH = 60
"""The greatest ``watchdog_thresh`` of the kernel, in seconds; a CPU is watched for twice that."""

OWN_TIMEOUT = 120
"""The kernel's own ``hung_task_timeout_secs``."""

EVERYTHING, REASONS = "8", "5"
"""The level of the console at which the kernel prints all it logs, and what hangs."""


def parameters(patience: int, cpus: int, *, everything: bool = False) -> dict[str, str]:
    """Return all of them, for a machine with these CPUs.

    Programs may be loaded without privilege, to be tested so. The kernel ends itself, and says
    where it is, at an NMI from this side; when a task waits uninterruptibly for ``patience``
    seconds; and before that when one CPU of several is not let go (a soft lockup), as the others go
    on answering this side. It does neither when ``patience`` is 0.
    """
    has_limit = patience > 0
    is_watched, watched = str(int(has_limit)), max(1, patience // 3)
    told = {
        "unprivileged_bpf_disabled": "0",
        "printk": EVERYTHING if everything else REASONS,
        "unknown_nmi_panic": is_watched,
        "hung_task_panic": is_watched,
        "hung_task_check_interval_secs": str(max(1, patience // 4) if has_limit else 0),
        "hung_task_timeout_secs": str(patience if has_limit else OWN_TIMEOUT),
    }
    if cpus > 1:
        has_watch = has_limit and watched <= LONGEST_WATCH
        told |= {"softlockup_panic": str(int(has_watch))}
        told |= {"watchdog_thresh": str(watched)} if has_watch else {}
    return told


def changes(patience: int, cpus: int, *, everything: bool = False) -> dict[str, str]:
    """Return those that differ from what a saved machine has been told."""
    saved = parameters(PATIENCE, cpus)
    wanted = parameters(patience, cpus, everything=everything)
    return {name: value for name, value in wanted.items() if saved.get(name) != value}
