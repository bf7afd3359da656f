"""The archive an initramfs is: cpio's "newc" (Linux's Documentation/driver-api/early-userspace)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

MAGIC = "070701"


class Archive:
    """Writes an archive; the folders above an entry and the links on the way to it come along."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._number = 0
        self._written: set[str] = {"/"}

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder, and those above it."""
        if path not in self._written:
            self._above(path)
            self._entry(path, stat.S_IFDIR | mode)

    def content(self, path: str, content: bytes, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a file with ``content``; what is already there under this name stays."""
        if path not in self._written:
            self._above(path)
            self._entry(path, stat.S_IFREG | mode, content, mtime)

    def node(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._above(path)
        self._entry(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def host_path(self, path: str) -> None:
        """Add what is at ``path`` on this machine, by its name here and the links on the way.

        A folder comes empty, with its time. What does not exist is left out.
        """
        resolved = self._follow(path)
        if resolved in self._written:
            return
        try:
            status = Path(resolved).lstat()
            content = Path(resolved).read_bytes() if stat.S_ISREG(status.st_mode) else b""
        except OSError:
            return
        if stat.S_ISREG(status.st_mode):
            self._entry(resolved, status.st_mode, content, int(status.st_mtime))
        elif stat.S_ISDIR(status.st_mode):
            self._entry(resolved, status.st_mode, mtime=int(status.st_mtime))

    def close(self) -> None:
        """Write the end; the output stays open."""
        self._entry("/TRAILER!!!", 0)

    def _follow(self, path: str) -> str:
        """Add each link and folder on the way, and return the path without links."""
        parts = [part for part in os.path.abspath(path).split("/") if part]  # noqa: PTH100
        done = "/"
        for _ in range(1000):
            if not parts:
                return done
            step = os.path.join(done, parts.pop(0))  # noqa: PTH118 (many, in a row)
            if os.path.islink(step):  # noqa: PTH114
                target = os.readlink(step)  # noqa: PTH115
                if step not in self._written:
                    self._entry(step, stat.S_IFLNK | 0o777, os.fsencode(target))
                joined = os.path.normpath(os.path.join(done, target))  # noqa: PTH118
                parts = [part for part in joined.split("/") if part] + parts
                done = "/"
            else:
                if parts:
                    self.folder(step)
                done = step
        return done

    def _above(self, path: str) -> None:
        above = os.path.dirname(path)  # noqa: PTH120
        if above not in self._written:
            self.folder(above)

    def _entry(
        self,
        path: str,
        mode: int,
        content: bytes = b"",
        mtime: int = 0,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self._written.add(path)
        self._number += 1
        name = os.fsencode(path.lstrip("/")) + b"\0"
        numbers = (
            *(self._number, mode, 0, 0, 1, mtime & 0xFFFFFFFF, len(content)),
            *(0, 0, *device, len(name), 0),
        )
        head = MAGIC + "".join(f"{number:08X}" for number in numbers)
        self._padded(head.encode() + name)
        self._padded(content)

    def _padded(self, data: bytes) -> None:
        self._output.write(data)
        self._output.write(bytes(-len(data) % 4))
