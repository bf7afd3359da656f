"""A program attached to a target, and how it is detached."""

from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys import ids, libbpf
from pytest_bpf.kernel.sys.bpf_syscall import detach_link, update_link
from pytest_bpf.objects.link.info import LinkInfo, link_info
from pytest_bpf.objects.link.targets import ProgramTarget, call_with_message, here, target_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects.link.targets import Attachable

REPLACE = 1 << 2
"""``BPF_F_REPLACE``."""


@checked_methods
class Link:
    """One program attached to one target, until `detach`.

    ``fd`` is the descriptor of the kernel's ``bpf_link``, and -1 where the kernel has none (tc
    filters, socket filters, socket maps, cgroups with ``mode=``), or several (USDT).
    """

    def __init__(
        self, program: str, target: str, undo: Callable[[], object], *, fd: int = -1
    ) -> None:
        self.program = program
        self.target = target
        self.fd = fd
        self._undo: Callable[[], object] | None = undo
        self._release: Callable[[], object] | None = None
        self._pins: list[Path] = []
        self._number = 0
        self.namespace: Any = None
        """The network namespace in which `read` runs an iterator; None is the caller's."""
        self.place: Any = None
        """What `Program.attach` was given: an interface, a cgroup; None where the section says."""

    # -- where links come from --------------------------------------------------------------

    @classmethod
    def owning(cls, fd: int, program: Attachable, target: str) -> Link:
        """Return the link of a new descriptor, which the link owns."""
        return cls(program.name, target, lambda: os.close(fd), fd=fd)

    @classmethod
    def by_libbpf(cls, program: Attachable, target: str, name: str, *arguments: Any) -> Link:
        """Return the link that libbpf's function ``name`` makes; raise `OSError`."""
        pointer = call_with_message(name, program.pointer, *arguments)
        fd = libbpf.function("bpf_link__fd")(pointer)
        destroy = libbpf.function("bpf_link__destroy")
        return cls(program.name, target, lambda: destroy(pointer), fd=fd)

    @classmethod
    def watch(cls, number: int, program: str, target: str) -> Link:
        """Return a link that another process made, by its id, 0 where it is no ``bpf_link``.

        It is not held open, so that it ends when that process wants it to. Only that process can
        take it apart: `detach` raises `AttachError`.
        """

        def refuse() -> None:
            raise AttachError(
                f"the link of {program!r} to {target} is another process's: end that one, or "
                "remove its pin"
            )

        link = cls(program, target, refuse)
        link._number = number
        link._release = lambda: None
        return link

    @classmethod
    def from_pin(cls, path: str | os.PathLike[str]) -> Link:
        """Return the link that is pinned to ``path``, whoever pinned it.

        `detach` detaches it; `close` only lets go of it. Raises `AttachError` when there is no
        link at ``path``.
        """
        place = Path(path)
        try:
            fd = int(libbpf.call("bpf_obj_get", os.fsencode(place)))
        except OSError as error:
            raise AttachError(
                f"there is no link at {place}: {error.strerror}", error.errno or 0
            ) from None
        if "link_id" not in Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii"):
            os.close(fd)
            raise AttachError(f"there is no link at {place}, but a program or a map")
        link = cls(place.name, link_info(fd).type, lambda: None, fd=fd)
        link._undo = link._release = weakref.finalize(link, os.close, fd)
        link._pins.append(place)
        return link

    # -- what it is ---------------------------------------------------------------------------

    @property
    def id(self) -> int:
        """The kernel's id of the link; `AttachError` where there is none."""
        return self.info.id

    @property
    def info(self) -> LinkInfo:
        """What the kernel tells of it; `AttachError` where the kernel has no link for it."""
        if self._number:
            with ids.open_while("link", self._number) as fd:
                if fd is None:
                    raise AttachError(f"{self!r} has no info: it is gone")
                return link_info(fd)
        self._need("info")
        return link_info(self.fd)

    @property
    def attached(self) -> bool:
        """Whether it is attached: it has not been detached by anybody, and its target is there.

        Of one without a descriptor (``fd`` -1), only `detach` is known; of one of another process,
        whether there still is one.
        """
        if self._number:
            return ids.exists("link", self._number)
        return self._undo is not None and not self.severed

    @property
    def severed(self) -> str:
        """Why it attaches nothing though nobody has detached it here; empty while it does."""
        if self._undo is None or self.fd < 0:
            return ""
        try:
            info = link_info(self.fd)
        except OSError as error:
            return f"the kernel does not know the link any more ({error})"
        gone = {
            "interface": info.ifindex,
            "cgroup": info.cgroup_id,
            "network namespace": info.netns_ino,
        }
        for target, number in gone.items():
            if number == 0:
                return f"its {target} is gone, or it was detached elsewhere"
        return ""

    # -- what can be done with it ----------------------------------------------------------

    def update(self, program: Any, *, old: Any = None) -> None:
        """Put another program in the place of this one, at once and without a gap.

        With ``old``, only if that program is the one attached. Raises `AttachError` with the
        kernel's reason: it must be of the same type, and links of tracing cannot be updated.
        """
        self._need("update")
        for value in (program, old):
            if value is not None and not isinstance(value, ProgramTarget):
                raise AttachError(f"{self!r}: update() takes programs, not {target_name(value)}")
        if program is None:
            raise AttachError(f"{self!r}: update() takes a program, not None")
        flags, old_fd = (REPLACE, old.fd) if old is not None else (0, 0)
        try:
            update_link(self.fd, program.fd, flags=flags, old_prog_fd=old_fd)
        except OSError as error:
            code = error.errno or 0
            hints = {
                errno.EPERM: f"; {old.name!r} is not the one attached" if old is not None else "",
                errno.EINVAL: f"; links of type {self.info.type} may not be updated, or "
                "the program is of another type",
                errno.ENOLINK: "; its target is gone",
            }
            raise AttachError(
                f"program {program.name!r} cannot take the place of {self.program!r} on "
                f"{self.target}: {libbpf.reason(code)}{hints.get(code, '')}",
                code,
            ) from None
        self.program = program.name

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin the link to a path on a bpffs; it stays attached until that path is removed.

        Raises `AttachError`.
        """
        self._need("pin")
        try:
            libbpf.call("bpf_obj_pin", self.fd, os.fsencode(path))
        except OSError as error:
            raise AttachError(
                f"{self!r} cannot be pinned to {os.fspath(path)}: {error.strerror}; "
                "is that on a bpffs?",
                error.errno or 0,
            ) from None
        self._pins.append(Path(path))

    def detach(self) -> None:
        """Detach, also when it is pinned; a second time does nothing.

        Raises `AttachError` for another process's link, and for a pinned link of tracing, which
        ends with its pin alone.
        """
        if self._undo is None:
            return
        if self._pins:
            self._force()
        undo, self._undo = self._undo, None
        try:
            undo()
        except AttachError:
            self._undo = undo
            raise
        self.fd = -1

    def close(self) -> None:
        """Let go: this detaches, but for a link that is pinned or another process's."""
        if self._release is not None:
            self._release()
            self.fd = -1
        elif self._undo is not None:
            self._undo()
            self._undo, self.fd = None, -1

    def read(self, *, netns: Any = None) -> str:
        """Run an iterator program and return what it printed.

        An iterator over sockets or routes sees those of the network namespace ``netns``, or else of
        the one that it was attached with. Raises `AttachError` for links of other kinds.
        """
        place = self.namespace if netns is None else netns
        if place is not None and not hasattr(place, "run"):
            raise AttachError(f"{self!r} is read in a Namespace, not in {place!r}")
        run = here if place is None else place.run
        try:
            fd = run(libbpf.call, "bpf_iter_create", self.fd)
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

    def _need(self, action: str) -> None:
        if self.fd < 0:
            why = "it is not one bpf_link of the kernel" if self.attached else "it is detached"
            why = "it is another process's; see Link.from_pin" if self._number else why
            raise AttachError(f"{self!r} has no {action}: {why}")

    def _force(self) -> None:
        """Detach what a pin would keep."""
        try:
            detach_link(self.fd)
        except OSError:
            pins = [path for path in self._pins if path.exists()]
            if pins:
                raise AttachError(
                    f"{self!r} is pinned, and the kernel detaches links of type {self.info.type} "
                    f"only with their last reference: remove {pins[0]}"
                ) from None
