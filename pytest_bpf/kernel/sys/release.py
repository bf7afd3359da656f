"""What the running kernel says of itself without being probed: its version and configuration."""

from __future__ import annotations

import gzip
import os
import re
from functools import cache
from pathlib import Path


def release() -> str:
    """Return the kernel's release as ``uname -r`` prints it."""
    return os.uname().release


@cache
def kernel_version() -> tuple[int, int, int]:
    """Return the kernel's version as (major, minor, patch).

    Debian and Ubuntu put another number into the release (``6.1.0-21-amd64`` is 6.1.90); their real
    one is read where libbpf reads it, from ``uname -v`` and from ``/proc/version_signature``.
    """
    candidates = [os.uname().release]
    if "Debian" in os.uname().version:
        candidates.insert(0, os.uname().version.partition("Debian")[2])
    signature = Path("/proc/version_signature")
    if signature.exists():
        candidates.insert(0, signature.read_text(encoding="ascii").split()[-1])
    for candidate in candidates:
        match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", candidate)
        if match:
            major, minor, patch = match.groups(default="0")
            return int(major), int(minor), int(patch)
    raise AssertionError(f"the kernel's release has no version: {candidates}")


def config(name: str) -> str | None:
    """Return the value of a ``CONFIG_...`` option of the running kernel.

    ``"y"``, ``"m"``, or the value without quotes; ``"n"`` when it is not set, and None when the
    configuration cannot be read (see `config_paths`), so that nothing is known.
    """
    options = _configuration()
    return None if options is None else options.get(name, "n")


def config_paths() -> tuple[Path, ...]:
    """Return where a kernel's configuration may lie, best first."""
    return (
        Path("/proc/config.gz"),
        Path(f"/boot/config-{release()}"),
        Path(f"/lib/modules/{release()}/config"),
    )


@cache
def _configuration() -> dict[str, str] | None:
    for path in config_paths():
        try:
            content = path.read_bytes()
        except OSError:
            continue
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
        return {name: value.strip('"') for name, value in pairs}
    return None


def not_configured(kind: str) -> str | None:
    """Return what the kernel lacks for a key of `CONFIGURED_BY`, when its configuration tells."""
    for option, what in CONFIGURED_BY.get(kind, ()):
        if config(option) == "n":
            return f"this kernel has no {what} ({option} is not set)"
    return None


_PERF = ("CONFIG_BPF_EVENTS", "BPF programs on perf events")
_BTF = ("CONFIG_DEBUG_INFO_BTF", "BTF")
_KPROBE = (("CONFIG_KPROBES", "kprobes"), ("CONFIG_KPROBE_EVENTS", "kprobe events"), _PERF)
_UPROBE = (("CONFIG_UPROBES", "uprobes"), ("CONFIG_UPROBE_EVENTS", "uprobe events"), _PERF)
_CALLS = ("CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS", "direct calls of ftrace")
_TRAMPOLINE = (_BTF, ("CONFIG_BPF_JIT", "BPF JIT"), _CALLS, _PERF)

CONFIGURED_BY = {
    "btf": (_BTF,),
    "tracepoint": (_PERF,),
    "raw_tp": (_PERF,),
    "tp_btf": (_BTF, _PERF),
    "kprobe": _KPROBE,
    "kretprobe": _KPROBE,
    "kprobe_multi": (("CONFIG_FPROBE", "fprobes"), *_KPROBE),
    "uprobe": _UPROBE,
    "uretprobe": _UPROBE,
    "usdt": _UPROBE,
    "fentry": _TRAMPOLINE,
    "fexit": _TRAMPOLINE,
    "fmod_ret": _TRAMPOLINE,
    "lsm": (("CONFIG_BPF_LSM", "BPF LSM"), *_TRAMPOLINE),
    "iter": (_BTF,),
    "perf_event": (_PERF,),
    "netfilter": (("CONFIG_NETFILTER_BPF_LINK", "netfilter programs"),),
    "netkit": (("CONFIG_NETKIT", "netkit interfaces"),),
    "uprobe_multi": _UPROBE,
    "tc": (("CONFIG_NET_CLS_BPF", "BPF classifier"), ("CONFIG_NET_SCH_INGRESS", "clsact qdisc")),
    "cgroup": (("CONFIG_CGROUP_BPF", "cgroup BPF"),),
    "sockops": (("CONFIG_CGROUP_BPF", "cgroup BPF"),),
    "struct_ops": (_BTF, ("CONFIG_BPF_JIT", "BPF JIT")),
}
"""By kind of attaching, the options it needs and what the kernel lacks without each."""
