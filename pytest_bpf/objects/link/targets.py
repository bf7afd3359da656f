"""What a program is attached to: interfaces, cgroups, namespaces, by object, number or name."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_bpf.errors import AttachError
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Attachable(Protocol):
    """What attaching needs of a loaded program.

    ``pointer`` is libbpf's ``struct bpf_program *``, 0 where libbpf did not load it here.
    """

    name: str
    type: str
    section: str
    expected_attach_type: int
    pointer: int

    @property
    def fd(self) -> int:
        """The file descriptor."""


@runtime_checkable
class InterfaceTarget(Protocol):
    """A network interface: its index, and the namespace that it is in."""

    ifindex: int
    namespace: Any


@runtime_checkable
class DescriptorTarget(Protocol):
    """A cgroup, a network namespace or a perf event: what has a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


@runtime_checkable
class MapTarget(Protocol):
    """A map: its descriptor and type."""

    fd: int
    type: str


@runtime_checkable
class ProgramTarget(Protocol):
    """A loaded program."""

    fd: int
    section: str


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in the calling thread."""
    return function(*arguments)


def call_with_message(name: str, *arguments: object) -> Any:
    """Call libbpf's ``name``; an `OSError` has libbpf's last message as ``detail``."""
    with libbpf.messages() as lines:
        try:
            return libbpf.call(name, *arguments)
        except OSError as error:
            error.detail = lines[-1] if lines else ""  # type: ignore[attr-defined]
            raise


def target_name(target: Any) -> str:
    """Return what to call a target in a message."""
    if isinstance(target, os.PathLike):
        return str(target)
    return str(getattr(target, "name", None) or getattr(target, "path", None) or target)


def program_fd(program: Attachable, other: Any, option: str) -> int:
    """Return the descriptor of a program given as an option; raise `AttachError` for others."""
    if not isinstance(other, ProgramTarget):
        raise AttachError(
            f"program {program.name!r}: {option}= takes a program, not {target_name(other)}"
        )
    return other.fd


def interface(program: Attachable, target: Any) -> tuple[int, Callable[..., Any]]:
    """Return an interface's index, and how to run a function in its network namespace."""
    if isinstance(target, InterfaceTarget):
        return target.ifindex, target.namespace.run
    if isinstance(target, int) and not isinstance(target, bool) and 0 < target < 2**31:
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
        f"not to {target_name(target)}: program.attach(namespace.iface)"
    )


def gone_interface(target: Any) -> str:
    """Return, in words, that a target is an interface that does not exist; empty where it does."""
    if isinstance(target, InterfaceTarget):
        index, run, where = target.ifindex, target.namespace.run, target_name(target.namespace)
    elif isinstance(target, int):
        index, run, where = target, here, "this network namespace"
    else:
        return ""
    try:
        run(socket.if_indextoname, index)
    except OSError:
        return f"there is no interface {index} in {where}"
    return ""


CGROUP, NETWORK = "a cgroup", "a network namespace"
"""What a descriptor may be of."""


def _check_kind(program: Attachable, target: Any, fd: int, noun: str) -> None:
    """Raise `AttachError` for a descriptor of something else."""
    path = f"/proc/self/fd/{fd}"
    try:
        is_one = {
            CGROUP: lambda: Path(path, "cgroup.controllers").exists(),
            NETWORK: lambda: str(Path(path).readlink()).startswith("net:["),
        }[noun]()
    except OSError:
        is_one = False
    if not is_one:
        what = f"descriptor {target}" if isinstance(target, int) else target_name(target)
        raise AttachError(
            f"program {program.name!r} ({program.type}) attaches to {noun}, and {what} is none"
        )


@contextmanager
def descriptor(program: Attachable, target: Any, noun: str) -> Iterator[int]:
    """Yield the descriptor of a cgroup or namespace, given as an object, a number or a path.

    ``noun``, `CGROUP` or `NETWORK`, is what the target should be. Raises `AttachError` for others.
    """
    if isinstance(target, (str, Path)):
        try:
            fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise AttachError(
                f"program {program.name!r}: {target} is not {noun}: {error.strerror}"
            ) from None
        try:
            _check_kind(program, target, fd, noun)
            yield fd
        finally:
            os.close(fd)
    elif isinstance(target, int) and not isinstance(target, bool) and 0 <= target < 2**31:
        _check_kind(program, target, target, noun)
        yield target
    elif isinstance(target, DescriptorTarget):
        fd = target.fileno()
        _check_kind(program, target, fd, noun)
        yield fd
    else:
        raise AttachError(
            f"program {program.name!r} ({program.type}) attaches to {noun}, "
            f"not to {target_name(target)}"
        )
