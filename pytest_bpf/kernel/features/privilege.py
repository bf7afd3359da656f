"""What this process lacks to load programs, as a sentence."""

from __future__ import annotations

import errno as errnos
import os
from functools import cache
from pathlib import Path

from pytest_bpf.kernel.features.probe import credentials, status
from pytest_bpf.kernel.programs.load import Variant, judge
from pytest_bpf.kernel.sys.libbpf import error_name

SYS_ADMIN = 21
CAPABILITIES = {"CAP_BPF": 39, "CAP_NET_ADMIN": 12, "CAP_PERFMON": 38}
"""What loading needs without CAP_SYS_ADMIN, by name, with its bit (``linux/capability.h``)."""

IN_A_MACHINE = "or the tests in a machine (--bpf-kernel debian)"
"""What needs no privilege."""

_REFUSALS = {errnos.EPERM, errnos.EACCES, errnos.ENOSYS}


def privilege() -> str | None:
    """Return what is missing to load networking and tracing programs; None when nothing is.

    The kernel is asked, once for each set of `credentials`: a capability is worth nothing in a user
    namespace, or behind a filter that refuses bpf(2). Raises `UnavailableError` when there is no
    libbpf.
    """
    return _privilege(credentials())


@cache
def _privilege(_: tuple[str, str]) -> str | None:
    verdicts = [judge(kind, Variant()) for kind in ("sched_cls", "raw_tracepoint")]
    refusal = next((v.errno for v in verdicts if v.errno in _REFUSALS), 0)
    if not refusal:
        return None
    return (
        _capabilities_missing()
        or _user_namespace()
        or _seccomp(refusal)
        or f"the kernel refuses bpf(2) ({error_name(refusal)}) to this process in spite of its "
        "capabilities; look for lockdown, a security module, or CONFIG_BPF_SYSCALL that is not "
        f"set, {IN_A_MACHINE}"
    )


def _capabilities_missing() -> str | None:
    effective = int(status("CapEff"), 16)
    missing = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if not missing or effective >> SYS_ADMIN & 1:
        return None
    return (
        f"needs {', '.join(missing)} or else CAP_SYS_ADMIN, which uid {os.geteuid()} does not have "
        f"here; run as root, in a container with --privileged, {IN_A_MACHINE}"
    )


def _user_namespace() -> str | None:
    outside = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    if outside == ["0", "0", str(2**32 - 1)]:
        return None
    return (
        f"needs CAP_BPF in the machine's own user namespace, and uid {os.geteuid()} has it only in "
        f"another one; run as root outside of it, {IN_A_MACHINE}"
    )


def _seccomp(refusal: int) -> str | None:
    if status("Seccomp") != "2":
        return None
    return (
        "needs CAP_BPF and no seccomp filter against it: this process's filter refuses bpf(2) "
        f"({error_name(refusal)}); run the container with --privileged or "
        f"--security-opt seccomp=unconfined, {IN_A_MACHINE}"
    )
