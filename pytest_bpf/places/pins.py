"""A private directory for pins, gone with all of them after the test."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from pytest_bpf.errors import PlaceError
from pytest_bpf.places import bpffs
from pytest_bpf.places.owned import owned_name

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self


class PinDirectory:
    """A directory on a bpf file system that only its owner can enter: ``path``.

    It is below /sys/fs/bpf where bpffs is mounted there, else a bpffs of its own, mounted on a
    private directory in /run until `close`. What a killed run left is removed by
    `pytest_bpf.places.owned.sweep`. Raises `UnavailableError` where there can be none.
    """

    def __init__(self) -> None:
        root = bpffs.make_directory(owned_name())
        self._end = weakref.finalize(self, _close, root, os.getpid())
        self.path: Path = root / "pins"  # below the root, where a bpffs has files of the kernel's
        self.path.mkdir(mode=0o700)

    def __repr__(self) -> str:
        return f"<PinDirectory {self.path}{'' if self._end.alive else ', closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directory with every pin in it. Repeatable."""
        self._end()


def _close(path: Path, maker: int) -> None:
    if os.getpid() != maker:
        return
    try:
        bpffs.remove(path)
    except OSError as error:
        raise PlaceError(f"the pins in {path} cannot be removed: {error.strerror}") from error
