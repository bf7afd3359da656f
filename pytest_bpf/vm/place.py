"""Where a saved machine lies: a folder named by all that its state depends on, but for files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import digest, open_cache
from pytest_bpf.vm import initramfs, qemu

if TYPE_CHECKING:
    from pytest_bpf.vm.qemu import Machine


@dataclass(frozen=True)
class Place:
    """Where a machine's state is, with one accelerator."""

    machine: Machine
    accelerator: str
    path: tuple[str, ...]

    @property
    def key(self) -> str:
        """A digest of the machine, its kernel, qemu, Python, and how this package joins them."""
        program = qemu.program()
        status = Path(program).stat()
        kernel = self.machine.kernel
        image_status = kernel.image.stat()
        return digest(
            *(program, str(status.st_mtime_ns), str(status.st_size)),
            *(str(kernel), str(image_status.st_mtime_ns), str(image_status.st_size)),
            *qemu.hardware(self.machine, self.accelerator),
            qemu.command_line(self.machine, "", ""),
            *(sys.executable, sys.version, *self.path),
            *(Path(file).read_bytes() for file in (str(initramfs.__file__), str(qemu.__file__))),
        )[:32]

    @property
    def folder(self) -> Path:
        """The folder of the state; it need not exist."""
        return open_cache().folder / "machines" / self.key

    @property
    def given_up(self) -> bool:
        """Whether this machine did not come up with this accelerator, so that none is saved."""
        return self._failure.exists()

    def give_up(self, error: Exception) -> None:
        """Note that it did not, and why."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._failure.write_text(str(error))

    @property
    def _failure(self) -> Path:
        return self.folder.with_suffix(".failed")
