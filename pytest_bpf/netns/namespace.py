"""Network namespaces. A thread keeps each one open; they have no name, so nothing can be left."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
import weakref
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from pytest_bpf.errors import (
    PlaceError,
    PrivilegeError,
    UnavailableError,
)
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys import libc
from pytest_bpf.kernel.sys.processes import Children, kill, pids_in_network
from pytest_bpf.kernel.sys.worker import Worker, Workers
from pytest_bpf.netns.interface import Interface, read_interfaces, read_loopback

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Self

    from pytest_bpf.traffic.traffic import Traffic

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound="Closable")

SIOCSIFFLAGS = 0x8914
IFF_UP = 1


class Closable(Protocol):
    """What is closed with a namespace; closing it again does nothing."""

    def close(self) -> None:
        """Close it."""


@checked_methods
class Namespace:
    """One network namespace with its ``lo`` up and nothing else; close it, or use ``with``.

    ``name`` is its label in messages and ``inode`` what the kernel calls ``net->ns.inum``.
    ``delay`` is the one-way delay in seconds that `pytest_bpf.netns.netem` adds here,
    ``xdp_peers`` the other ends of the veths that were made for XDP, by this end's index.
    A test process that is killed leaves nothing: no namespace, and no process made by `popen`.
    Raises `UnavailableError` where no namespace can be made.
    """

    def __init__(self, name: str = "namespace") -> None:
        self._hold(_Start(name))

    @classmethod
    def create_many(cls, names: Iterable[str]) -> list[Namespace]:
        """Make several namespaces at once, which is faster; on an error none is left."""
        if isinstance(names, str):
            raise PlaceError(f"names are several, [{names[:20]!r}], not one string")
        starts = [_Start(name) for name in names]
        namespaces: list[Namespace] = []
        try:
            for start in starts:
                namespace = cls.__new__(cls)
                namespace._hold(start)  # noqa: SLF001 - our own class
                namespaces.append(namespace)
        except BaseException:
            for namespace in namespaces:
                namespace.close()
            for start in starts[len(namespaces) + 1 :]:
                start.abandon()
            raise
        return namespaces

    def _hold(self, start: _Start) -> None:
        self.name = start.name
        self.delay = 0.0
        self.xdp_peers: dict[int, tuple[Namespace, int]] = {}
        self._descriptor = descriptor = start.descriptor()
        self.inode = os.fstat(descriptor).st_ino
        self._workers = Workers(start.worker, lambda: libc.setns(descriptor, libc.CLONE_NEWNET))
        self._children = Children()
        self._kept: weakref.WeakValueDictionary[int, Closable] = weakref.WeakValueDictionary()
        self._end = weakref.finalize(
            self, _close, self._children, self._workers, descriptor, self.inode
        )
        self._end.atexit = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"inode {self.inode}"
        return f"<Namespace {self.name!r}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._end.alive

    def fileno(self) -> int:
        """Return the namespace's descriptor; raise `PlaceError` when it is closed."""
        if self.closed:
            raise PlaceError(f"namespace {self.name!r} is closed, it has no descriptor any more")
        return self._descriptor

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in the namespace: return what it returns, raise what it raises.

        It runs in another thread of this process, so it sees every object of the test. Calls from
        several threads run at the same time; one made by ``function`` itself stays in its thread.
        Ctrl-C ends the wait at once. Raises `PlaceError` after `close`.
        """
        return self._workers.run(function, *args, **kwargs)

    def socket(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,  # noqa: A002 - socket.socket's name
        proto: int = 0,
    ) -> socket.socket:
        """Return a socket of this namespace, to be used and closed by any thread."""
        return self.run(socket.socket, family, type, proto)

    def popen(self, command: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a process in the namespace; it is killed by `close` and with the test process.

        ``kwargs`` are those of `subprocess.Popen`, without ``shell``. Raises `PlaceError` when
        there is no such command.
        """
        return self.run(self._children.start, command, **kwargs)

    @property
    def interfaces(self) -> Mapping[str, Interface]:
        """The interfaces there are now, by name and in the order of their indexes, without lo."""
        return self.run(read_interfaces, self)

    @property
    def lo(self) -> Interface:
        """The loopback interface; ``interfaces["lo"]`` is the same."""
        return self.run(read_loopback, self)

    @property
    def iface(self) -> Interface:
        """The interface, or the first of several; raise `PlaceError` when there is only lo."""
        for interface in self.interfaces.values():
            return interface
        raise PlaceError(f"namespace {self.name!r} has no interface but lo; make a pair() instead")

    @property
    def ipv4(self) -> ipaddress.IPv4Address:
        """The IPv4 address of `iface`, or 127.0.0.1 where there is only lo."""
        for interface in self.interfaces.values():
            if interface.ipv4 is None:
                raise PlaceError(f"{interface.name} in namespace {self.name!r} has no IPv4 address")
            return interface.ipv4.ip
        return ipaddress.IPv4Address("127.0.0.1")

    @property
    def ipv6(self) -> ipaddress.IPv6Address:
        """The IPv6 address of `iface`, or ::1 where there is only lo."""
        for interface in self.interfaces.values():
            if interface.ipv6 is None:
                raise PlaceError(f"{interface.name} in namespace {self.name!r} has no IPv6 address")
            return interface.ipv6.ip
        return ipaddress.IPv6Address("::1")

    def keep(self, closable: C) -> C:
        """Close something with the namespace, unless it is closed or gone before; return it."""
        if not hasattr(closable, "close"):
            raise PlaceError(f"{closable!r:.60} cannot be kept: it has no close()")
        if closable is self:
            raise PlaceError(f"namespace {self.name!r} cannot be closed with itself")
        self._kept[id(closable)] = closable
        return closable

    @cached_property
    def ipr(self) -> Any:
        """pyroute2's ``IPRoute`` of this namespace, for all that a topology does not make.

        It is made by its first use, may be used in any thread, and is closed with the namespace.
        """
        from pytest_bpf.netns.iproute import iproute  # noqa: PLC0415 - by its first user

        return iproute(f"/proc/{os.getpid()}/fd/{self.fileno()}")

    @cached_property
    def traffic(self) -> Traffic:
        """Sends and receives traffic in this namespace."""
        from pytest_bpf.traffic.traffic import Traffic  # noqa: PLC0415 - by its first user

        return Traffic(self)

    def close(self) -> None:
        """Kill the processes in the namespace, end its threads and let go of it. Repeatable.

        Sockets of the namespace stay open, and keep it alive, until they are closed themselves.
        Raises `PlaceError` when a function that runs here does not return in time.
        """
        for each in list(self._kept.values()):
            each.close()
        route = self.__dict__.pop("ipr", None)
        if route is not None:
            route.close()
        self._end()


class _Start:
    """A new namespace, while its thread is creating it."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise PlaceError(f"the name of a namespace is text, not {name!r:.60}")
        self.name = name
        self.worker = Worker(f"namespace {name!r}")
        self._job = self.worker.submit(_leave)

    def descriptor(self) -> int:
        """Wait for the namespace and return its descriptor; `UnavailableError` has the reason."""
        try:
            self._job.wait()
            return self._job.result()
        except OSError as error:
            self.worker.end()
            raise _explain(error) from error

    def abandon(self) -> None:
        """End the thread and close its namespace."""
        with suppress(UnavailableError):
            os.close(self.descriptor())
            self.worker.end()


def _leave() -> int:
    """Give the calling thread a new namespace with lo up, and return its descriptor."""
    libc.unshare(libc.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ioctls:
        fcntl.ioctl(ioctls, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _explain(error: OSError) -> UnavailableError:
    if error.errno == errno.EPERM:
        return PrivilegeError("a network namespace", "CAP_SYS_ADMIN")
    if error.errno == errno.ENOSPC:
        limit = "/proc/sys/user/max_net_namespaces"
        return UnavailableError(
            f"no more network namespaces are allowed here (ENOSPC); raise {limit}"
        )
    return UnavailableError(
        f"this kernel makes no network namespace: {error.strerror}; it needs CONFIG_NET_NS"
    )


def _close(children: Children, workers: Workers, descriptor: int, inode: int) -> None:
    try:
        children.end()
        if children.used:
            kill(pid for pid in pids_in_network(inode) if pid != os.getpid())
    finally:
        os.close(descriptor)
        workers.close()
