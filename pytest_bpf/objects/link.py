"""An attachment, and how to undo it."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.info import LinkInfo, read_info

if TYPE_CHECKING:
    from collections.abc import Callable


class Link:
    """One program attached to one target, until `detach`.

    ``fd`` is the descriptor of the kernel's ``bpf_link``, and -1 where the kernel has none (tc
    filters, socket filters, socket maps).
    """

    def __init__(
        self, program: str, target: str, undo: Callable[[], object], *, fd: int = -1
    ) -> None:
        self.program = program
        self.target = target
        self.fd = fd
        self._undo: Callable[[], object] | None = undo
        self._release: Callable[[], object] | None = None

    @classmethod
    def found(cls, fd: int, program: str, target: str) -> Link:
        """Return a link that another process made; its descriptor is closed with the value.

        Only that process can take it apart: `detach` raises `AttachError`.
        """

        def refuse() -> None:
            raise AttachError(
                f"the link of {program!r} to {target} is another process's: end that one"
            )

        link = cls(program, target, refuse, fd=fd)
        link._release = weakref.finalize(link, os.close, fd) if fd >= 0 else lambda: None
        return link

    @property
    def id(self) -> int:
        """The kernel's id of the link; `AttachError` where there is none."""
        if self.fd < 0:
            raise AttachError(f"{self!r} has no id: the kernel has no bpf_link for it")
        return int(read_info(self.fd, LinkInfo).id)

    @property
    def attached(self) -> bool:
        """Whether it has not been detached."""
        return self._undo is not None

    def detach(self) -> None:
        """Detach; a second time does nothing."""
        if self._undo is not None:
            self._undo()
            self._undo, self.fd = None, -1

    def close(self) -> None:
        """Detach; a link that another process made is let go, and stays attached."""
        if self._release is None:
            self.detach()
        else:
            self._release()
            self.fd = -1

    def read(self) -> str:
        """Run an iterator program and return what it printed.

        Raises `AttachError` for links of other kinds.
        """
        try:
            fd = libbpf.call("bpf_iter_create", self.fd)
        except OSError as error:
            raise AttachError(
                f"{self!r} cannot be read, only iterators can: {error.strerror}", error.errno or 0
            ) from None
        with os.fdopen(fd, "rb") as output:
            return output.read().decode(errors="replace")

    def __enter__(self) -> Link:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"<Link {self.program} -> {self.target}{'' if self.attached else ', detached'}>"
