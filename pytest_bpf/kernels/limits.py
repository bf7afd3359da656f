"""What a kernel cannot do, as the files that it came with tell before it boots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import lookup
from pytest_bpf.kernels.kernel import version_key

if TYPE_CHECKING:
    from pytest_bpf.kernels.kernel import Kernel

OLDEST = (5, 10)
"""The oldest version that tests run on."""

NEEDED = {
    "CONFIG_BPF_SYSCALL": "the system call bpf()",
    "CONFIG_NET_9P_VIRTIO": "9p over virtio",
    "CONFIG_9P_FS": "the file system 9p",
    "CONFIG_OVERLAY_FS": "overlayfs",
    "CONFIG_VIRTIO_PCI": "virtio",
    "CONFIG_VIRTIO_CONSOLE": "virtio's console",
}
"""Options without which there is no machine to test in, and what each is."""

WANTED = {
    "CONFIG_DEBUG_INFO_BTF": "BTF: CO-RE, vmlinux.h, fentry and LSM programs",
    "CONFIG_BPF_JIT": "the JIT: sizes of machine code, fentry",
    "CONFIG_BPF_EVENTS": "programs on kprobes, uprobes and tracepoints",
    "CONFIG_CGROUP_BPF": "programs of cgroups",
    "CONFIG_NET_CLS_BPF": "tc programs by filters",
}
"""Options without which a part of all tests cannot run, and what that is."""

NEWER = {
    (5, 12): "atomic operations but plain additions (since Linux 5.12): compile with "
    "bpf_cflags = -mcpu=v2",
    (5, 13): "functions of the kernel to call (kfuncs, since Linux 5.13)",
    (5, 15): "bpf_timer (since Linux 5.15)",
    (5, 17): "bpf_loop() (since Linux 5.17)",
}
"""What programs often use and old kernels lack, by the version that has it."""


def require_possible(kernel: Kernel) -> None:
    """Raise `BpfError` when no machine can be made of a kernel, as far as its files tell."""
    version = tuple(version_key(kernel.release)[:2])
    if version and version < OLDEST:
        raise BpfError(
            f"the kernel {kernel.release} ({kernel.image}) is too old: tests run on Linux "
            f"{'.'.join(map(str, OLDEST))} and newer"
        )
    options = _options(kernel)
    if not options:
        lookup.require_modules(kernel)
    if missing := [f"{what} ({name})" for name, what in NEEDED.items() if options.get(name) == "n"]:
        raise lookup.lacking(kernel, ", ".join(missing))


def of(kernel: Kernel) -> list[str]:
    """Return sentences about what does not work on a kernel, as far as its files tell."""
    options = _options(kernel)
    version = tuple(version_key(kernel.release)[:2])
    lacking = [
        f"{what} ({name} is not set)" for name, what in WANTED.items() if options.get(name) == "n"
    ]
    lacking += [what for since, what in NEWER.items() if version and version < since]
    return [f"{kernel.release} has no {what}" for what in lacking]


def _options(kernel: Kernel) -> dict[str, str]:
    """Say of `NEEDED` and `WANTED` whether they are set; empty when nothing tells."""
    if kernel.config is None:
        return {}
    text = kernel.config.read_text(errors="replace")
    return {name: "y" if f"\n{name}=" in text else "n" for name in (*NEEDED, *WANTED)}
