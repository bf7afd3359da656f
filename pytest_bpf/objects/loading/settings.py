"""What was set on an open object, so that it can be set again on another copy of it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.objects.loading.handle import Handle

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_bpf.objects.loading.object import Object
    from pytest_bpf.objects.maps.map import Map

LOG_SIZE = 1 << 16
"""Bytes for a program's statistics."""

FULL_LOG_SIZE = (1 << 24) - 1
"""Bytes for a whole log: the most that kernels before 6.4 take."""

Call = tuple[str, str, str]
"""A function of libbpf, ``"program"`` or ``"map"``, and the name of one."""


@dataclass
class PendingSettings:
    """What was set: calls of libbpf, bytes of globals, and what waits for the load.

    ``calls`` are the arguments after the pointer, by function and program or map; ``contents`` the
    bytes of global variables by map and offset. ``attach_targets``, ``maps`` (those that take the
    place of one) and ``pins`` go by name.
    """

    calls: dict[Call, tuple[Any, ...]] = field(default_factory=dict)
    contents: dict[tuple[str, int], bytes] = field(default_factory=dict)
    attach_targets: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)
    pins: dict[str, Path | None] = field(default_factory=dict)
    log_levels: dict[str, int] = field(default_factory=dict)
    log_size: int = LOG_SIZE

    def copy(self) -> PendingSettings:
        """Return a copy that later settings do not change."""
        return PendingSettings(
            dict(self.calls),
            dict(self.contents),
            dict(self.attach_targets),
            dict(self.maps),
            dict(self.pins),
            dict(self.log_levels),
            self.log_size,
        )


@dataclass(frozen=True)
class ObjectFile:
    """An object file and how libbpf opens it: ``path`` is that of its source where there is one."""

    path: Path
    content: bytes
    kconfig: str | None = None
    btf_path: Path | None = None


class OtherBuild(Protocol):
    """Another build of an object, which is loaded in its place where the kernel takes it."""

    content: bytes

    def loaded(self, obj: Object) -> None:
        """Take note of an object that was loaded from this build."""

    def refused(self, error: Exception) -> None:
        """Take note that this build could not be loaded, and the object could."""


class HandleOwner:
    """A handle of libbpf, opened when something is asked of it, with the settings applied."""

    def __init__(self, file: ObjectFile, settings: PendingSettings) -> None:
        self.file = file
        self.settings = settings
        self._handle: Handle | None = None
        self._closed = False

    @property
    def handle(self) -> Handle:
        """The object of libbpf, not loaded; `LoadError` once it was closed."""
        if self._closed:
            raise LoadError(f"{self.file.path.name} is closed; open it again")
        if self._handle is None:
            file = self.file
            handle = Handle(file.path, file.content, file.kconfig, file.btf_path)
            try:
                self._apply(handle)
            except BaseException:
                handle.close()
                raise
            self._handle = handle
        return self._handle

    def take(self) -> Handle:
        """Return the handle for somebody else to own; the next use opens another one."""
        handle, self._handle = self.handle, None
        return handle

    def call(self, function: str, kind: str, name: str, *arguments: Any) -> None:
        """Set something of a program or map, and remember it; an `OSError` is libbpf's."""
        libbpf.call(function, getattr(self.handle, f"{kind}s")[name], *arguments)
        self.settings.calls[function, kind, name] = arguments

    def close(self) -> None:
        """Free the handle; the object cannot be used any more."""
        self._closed = True
        if self._handle is not None:
            self._handle.close()

    def _apply(self, handle: Handle) -> None:
        for (function, kind, name), arguments in self.settings.calls.items():
            libbpf.call(function, getattr(handle, f"{kind}s")[name], *arguments)
        for (name, offset), raw in self.settings.contents.items():
            write_initial(handle.maps[name], offset, raw)


def write_initial(pointer: int, offset: int, raw: bytes) -> bool:
    """Write into the initial value of a map of globals; False where it ends before that."""
    address, size = initial_value(pointer)
    if not address or offset + len(raw) > size:
        return False
    ctypes.memmove(address + offset, raw, len(raw))
    return True


def initial_value(pointer: int) -> tuple[int, int]:
    """Return the address and the size of the initial value of a map of globals, 0 without one."""
    size = ctypes.c_size_t()
    address = libbpf.function("bpf_map__initial_value")(pointer, ctypes.byref(size))
    return address or 0, size.value if address else 0
