"""What a saved machine is made of, all but files, and the folder that this gives it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import digest, open_cache
from pytest_bpf.vm import initramfs, parameters, qemu

if TYPE_CHECKING:
    from pytest_bpf.vm.qemu import Machine

JOINTS = (initramfs, parameters, qemu)
"""The modules that say what is in a machine beside Python."""


@dataclass(frozen=True)
class Recipe:
    """What a machine with one accelerator is made of; ``path`` is its Python's ``sys.path``."""

    machine: Machine
    accelerator: str
    path: tuple[str, ...]

    @property
    def key(self) -> str:
        """A digest of the machine, its kernel, qemu, Python, and how this package joins them."""
        return digest(
            *self._hardware,
            *(sys.executable, sys.version, *self.path),
            *(Path(str(module.__file__)).read_bytes() for module in JOINTS),
        )[:32]

    @property
    def _hardware(self) -> list[str]:
        """What decides whether the kernel boots, whatever Python is in the machine."""
        program = qemu.program()
        status = Path(program).stat()
        kernel = self.machine.kernel
        image_status = kernel.image.stat()
        return [
            *(program, str(status.st_mtime_ns), str(status.st_size)),
            *(str(kernel), str(image_status.st_mtime_ns), str(image_status.st_size)),
            *qemu.hardware(self.machine, self.accelerator),
            qemu.command_line(self.machine, "", ""),
        ]

    @property
    def folder(self) -> Path:
        """The folder of the state; it need not exist."""
        return open_cache().folder / "machines" / self.key

    @property
    def has_failed(self) -> bool:
        """Whether such a machine did not come up with this accelerator: another will not either."""
        return open_cache().trusts(self._failure)

    def record_failure(self, error: Exception) -> None:
        """Note that it did not, and why."""
        open_cache().write(str(error).encode(), "machines", self._failure.name)

    @property
    def _failure(self) -> Path:
        return open_cache().folder / "machines" / f"{digest(*self._hardware)[:32]}.failed"
