"""What a program is attached to: interfaces, cgroups, namespaces, by object, number or name."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel import libbpf

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects.loaded import LoadedProgram


@dataclass(frozen=True)
class Options:
    """How to attach, beyond the target; each kind of program uses its own of these."""

    direction: str | None = None
    mode: str | None = None
    binary: str | os.PathLike[str] | None = None
    function: str | None = None
    offset: int = 0
    provider: str | None = None
    pid: int = -1
    cpu: int = -1
    frequency: int = 1000


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in the calling thread."""
    return function(*arguments)


def told(name: str, *arguments: object) -> Any:
    """Call libbpf's ``name``; an `OSError` brings along what libbpf said last, as ``said``."""
    with libbpf.messages() as lines:
        try:
            return libbpf.call(name, *arguments)
        except OSError as error:
            error.said = lines[-1] if lines else ""  # type: ignore[attr-defined]
            raise


def named(target: Any) -> str:
    """Return what to call a target in a message."""
    return str(getattr(target, "name", None) or getattr(target, "path", None) or target)


def interface(program: LoadedProgram, target: Any) -> tuple[int, Callable[..., Any]]:
    """Return an interface's index, and how to run a function in its network namespace."""
    if hasattr(target, "ifindex"):
        return target.ifindex, target.namespace.run
    if isinstance(target, int):
        return target, here
    if isinstance(target, str):
        try:
            return socket.if_nametoindex(target), here
        except OSError:
            raise AttachError(
                f"program {program.name!r}: there is no interface {target!r} in this network "
                "namespace; pass a namespace's .iface"
            ) from None
    raise AttachError(
        f"program {program.name!r} ({program.type}) attaches to an interface, "
        f"not to {named(target)}: program.attach(namespace.iface)"
    )


class opened:  # noqa: N801 (used as a context manager)
    """A descriptor of a cgroup or namespace, given as an object, a number or a path."""

    def __init__(self, program: LoadedProgram, target: Any, what: str) -> None:
        self._mine = -1
        if isinstance(target, (str, Path)):
            try:
                self._mine = self._fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise AttachError(
                    f"program {program.name!r}: {target} is not {what}: {error.strerror}"
                ) from None
        elif isinstance(target, int):
            self._fd = target
        elif hasattr(target, "fileno"):
            self._fd = target.fileno()
        else:
            raise AttachError(
                f"program {program.name!r} ({program.type}) attaches to {what}, "
                f"not to {named(target)}"
            )

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._mine >= 0:
            os.close(self._mine)
