"""The first root of the machine: a Python, its files at their own paths, modules to load."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING

from pytest_bpf.kernels import modules
from pytest_bpf.vm import parameters
from pytest_bpf.vm.cpio import Archive
from pytest_bpf.vm.guest import init

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.vm.python import Closure
    from pytest_bpf.vm.qemu import Machine

FOLDERS = ("/proc", "/sys", "/dev", "/run", "/tmp", "/.machine", "/root")  # noqa: S108 (of the guest)


def write(output: IO[bytes], machine: Machine, closure: Closure, path: Sequence[str]) -> None:
    """Write the archive; `init` finds its orders in ``/machine.json``."""
    loaded, kernel = {}, machine.kernel
    if kernel.modules:
        wanted = (*modules.REQUIRED, *modules.OPTIONAL)
        loaded = modules.closure(wanted, modules.available(kernel.modules))
    archive = Archive(output)
    for folder in FOLDERS:
        archive.folder(folder)
    archive.node("/dev/console", 5, 1)
    archive.node("/dev/null", 1, 3)
    names = [f"/modules/{name}.ko" for name in loaded]
    for name, content in zip(names, loaded.values(), strict=True):
        archive.content(name, content)
    told = parameters.parameters(parameters.PATIENCE, machine.cpus)
    orders = {"modules": names, "path": list(path), "parameters": told}
    archive.content(init.MACHINE, json.dumps(orders).encode())
    for file in (init.__file__, *closure.files):
        archive.host_path(file)
    archive.close()
