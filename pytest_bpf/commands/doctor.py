"""``pytest-bpf doctor``: what this machine can do, and what to install for what it cannot."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.compile import find_compiler
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel import features
from pytest_bpf.kernel.btf.vmlinux_h import RUNNING
from pytest_bpf.kernel.sys import libbpf, mountinfo
from pytest_bpf.kernel.sys.release import release
from pytest_bpf.vm import qemu

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HELPERS = ("/usr/include/bpf/bpf_helpers.h", "/usr/local/include/bpf/bpf_helpers.h")


@dataclass(frozen=True)
class Check:
    """One line of the report: ``ok``, what was seen, and what mends it when it is not."""

    name: str
    ok: bool
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'ok ' if self.ok else 'no '} {self.name:12} {self.text}"
        return f"{line}\n                 -> {self.remedy}" if self.remedy and not self.ok else line


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    return argparse.ArgumentParser(
        "pytest-bpf doctor", description="Say what this machine can do, and what is missing."
    )


def main(arguments: Sequence[str]) -> int:
    """Print what this machine can do; return 0 when tests can run here in any way, else 1."""
    parser().parse_args(arguments)
    native = [check() for check in NATIVE]
    machine = [check() for check in MACHINE]
    ready = all(finding.ok for finding in native)
    ready_machine = all(f.ok for f in (*native[:NEEDED_EVERYWHERE], *machine))
    print("On this kernel:")
    print(*native, _cgroup(), _attaching(), sep="\n")
    print("\nIn a machine (--bpf-kernel debian):")
    print(*machine, _kvm(), sep="\n")
    print()
    print(_conclusion(ready=ready, ready_machine=ready_machine))
    return 0 if ready or ready_machine else 1


def _conclusion(*, ready: bool, ready_machine: bool) -> str:
    if ready:
        also = "" if ready_machine else "; other kernels need what is missing above"
        return f"Tests run on this kernel: pytest{also}."
    if ready_machine:
        return "Tests run in a machine: pytest --bpf-kernel debian."
    return "Tests cannot run here yet: install what is missing above."


def _python() -> Check:
    text = f"{platform.python_version()}, pytest {version('pytest')}"
    return Check("Python", True, f"{text}, pytest-bpf {version('pytest-bpf')}")


def _libbpf() -> Check:
    try:
        return Check("libbpf", True, libbpf.version())
    except BpfError as error:
        return Check("libbpf", False, str(error), "apt install libbpf1")


def _headers() -> Check:
    path = next((path for path in HELPERS if Path(path).exists()), "")
    text = path or "there is no bpf/bpf_helpers.h"
    return Check("headers", bool(path), text, "apt install libbpf-dev")


def _compiler() -> Check:
    try:
        return Check("compiler", True, str(find_compiler()))
    except BpfError as error:
        remedy = "apt install clang, or pip install 'pytest-bpf[compiler]'"
        return Check("compiler", False, str(error), remedy)


def _kernel() -> Check:
    btf = RUNNING.exists()
    text = f"{release()}, {'BTF' if btf else 'without BTF: no vmlinux.h, no CO-RE'}"
    return Check("kernel", btf, text, "run the tests in a machine")


def _privilege() -> Check:
    try:
        lacks = features.privilege()
    except BpfError as error:
        lacks = str(error)
    return Check(
        "privilege", not lacks, lacks or f"uid {os.geteuid()} may load programs",
        "sudo -E \"$(command -v pytest)\", or run the tests in a machine",
    )  # fmt: skip


def _cgroup() -> Check:
    mounts = mountinfo.mounts("cgroup2")
    text = str(mounts[-1].path) if mounts else "it is not mounted"
    return Check("cgroup v2", bool(mounts), text, "mount -t cgroup2 none /mnt/cgroup")


def _attaching() -> Check:
    answers = {kind: features.attach(kind) for kind in features.ATTACH_KINDS}
    missing = [kind for kind, answer in answers.items() if not answer]
    count = len(answers) - len(missing)
    text = f"{count} of {len(answers)} kinds of attaching"
    return Check("attaching", not missing, f"{text}; not {', '.join(missing)}" if missing else text)


def _qemu() -> Check:
    try:
        return Check("qemu", True, str(qemu.program()))
    except BpfError as error:
        package = "qemu-system-arm" if platform.machine() == "aarch64" else "qemu-system-x86"
        return Check("qemu", False, str(error), f"apt install {package}")


def _packages() -> Check:
    is_there = find_spec("xdist") is not None
    text = "pytest-xdist" if is_there else "xdist cannot be imported"
    return Check("packages", is_there, text, "pip install 'pytest-bpf[vm]'")


def _cache() -> Check:
    folder = open_cache().folder
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return Check("cache", os.access(place, os.W_OK), str(folder), "--bpf-cache-dir=DIR")


def _kvm() -> Check:
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
    text = "/dev/kvm" if usable else "no /dev/kvm: machines are emulated, Python is 20 times slower"
    return Check("KVM", usable, text)


NATIVE: tuple[Callable[[], Check], ...] = (
    *(_python, _libbpf, _headers, _compiler, _kernel, _privilege),
)
NEEDED_EVERYWHERE = 4
"""How many of the first checks a machine needs, too: it uses this machine's files."""

MACHINE: tuple[Callable[[], Check], ...] = (_qemu, _packages, _cache)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
