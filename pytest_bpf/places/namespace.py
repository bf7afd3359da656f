"""Network namespaces, each held by a thread: nothing of them has a name, so nothing is left."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pytest_bpf.errors import PlaceError, UnavailableError, UnknownNameError, near_matches
from pytest_bpf.places import libc
from pytest_bpf.places.processes import Children, in_network, kill
from pytest_bpf.places.worker import Worker, Workers

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Self

    from pytest_bpf.stimuli.traffic import Traffic

P = ParamSpec("P")
T = TypeVar("T")

SIOCSIFFLAGS = 0x8914
IFF_UP = 1


@dataclass(frozen=True)
class Interface:
    """A network interface as it was when it was asked for; ``mac`` is empty where there is none."""

    name: str
    ifindex: int
    mac: str
    namespace: Namespace = field(repr=False)
    ipv4: ipaddress.IPv4Interface | None = None
    ipv6: ipaddress.IPv6Interface | None = None


class Namespace:
    """One network namespace with its ``lo`` up and nothing else; close it, or use ``with``.

    ``name`` is its label in messages and ``inode`` what the kernel calls ``net->ns.inum``.
    ``delay`` is the one-way delay in seconds that `pytest_bpf.places.netem` adds here.
    A test process that is killed leaves nothing: no namespace, and no process made by `popen`.
    Raises `UnavailableError` where no namespace can be made.
    """

    def __init__(self, name: str = "namespace") -> None:
        self._hold(_Beginning(name))

    @classmethod
    def several(cls, names: Iterable[str]) -> list[Namespace]:
        """Make namespaces at the same time, which is faster; all of them or, on an error, none."""
        beginnings = [_Beginning(name) for name in names]
        made: list[Namespace] = []
        try:
            for beginning in beginnings:
                namespace = cls.__new__(cls)
                namespace._hold(beginning)  # noqa: SLF001 - our own class
                made.append(namespace)
        except BaseException:
            for namespace in made:
                namespace.close()
            for beginning in beginnings[len(made) + 1 :]:
                beginning.abandon()
            raise
        return made

    def _hold(self, beginning: _Beginning) -> None:
        self.name = beginning.name
        self.delay = 0.0
        self._descriptor = descriptor = beginning.descriptor()
        self.inode = os.fstat(descriptor).st_ino
        self._workers = Workers(beginning.worker, lambda: libc.setns(descriptor, libc.CLONE_NEWNET))
        self._children = Children()
        self._end = weakref.finalize(
            self, _close, self._children, self._workers, descriptor, self.inode
        )
        self._end.atexit = False

    def __repr__(self) -> str:
        state = f"inode {self.inode}" if self._end.alive else "closed"
        return f"<Namespace {self.name!r}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the namespace's descriptor; raise `PlaceError` when it is closed."""
        if not self._end.alive:
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
        return self.run(_interfaces, self)

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

    @cached_property
    def traffic(self) -> Traffic:
        """What sends and receives here."""
        from pytest_bpf.stimuli.traffic import Traffic  # noqa: PLC0415 - by its first user

        return Traffic(self)

    def close(self) -> None:
        """Kill the processes in the namespace, end its threads and let go of it. Repeatable.

        Sockets of the namespace stay open, and keep it alive, until they are closed themselves.
        Raises `PlaceError` when a function that runs here does not return in time.
        """
        self._end()


class _Beginning:
    """A namespace on its way, in a thread that is leaving for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.worker = Worker(f"namespace {name!r}")
        self._job = self.worker.submit(_leave)

    def descriptor(self) -> int:
        """Return the namespace's descriptor once it is there, or end the thread and say why not."""
        try:
            self._job.wait()
            return self._job.result()
        except OSError as error:
            self.worker.end()
            raise UnavailableError(_explain(error)) from error

    def abandon(self) -> None:
        """End the thread and what it may have made."""
        with suppress(UnavailableError):
            os.close(self.descriptor())
            self.worker.end()


def _leave() -> int:
    """Give the calling thread a new namespace with lo up, and return its descriptor."""
    libc.unshare(libc.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ioctls:
        fcntl.ioctl(ioctls, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _explain(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return (
            f"a network namespace needs CAP_SYS_ADMIN, which this process (uid {os.geteuid()}) "
            "does not have; run as root"
        )
    if error.errno == errno.ENOSPC:
        limit = "/proc/sys/user/max_net_namespaces"
        return f"no more network namespaces are allowed here (ENOSPC); raise {limit}"
    return f"this kernel makes no network namespace: {error.strerror}; it needs CONFIG_NET_NS"


def _close(children: Children, workers: Workers, descriptor: int, inode: int) -> None:
    try:
        children.end()
        if children.used:
            kill(pid for pid in in_network(inode) if pid != os.getpid())
    finally:
        os.close(descriptor)
        workers.close()


def _interfaces(namespace: Namespace) -> Mapping[str, Interface]:
    import psutil  # noqa: PLC0415 - 10 ms that not every session needs

    addresses = psutil.net_if_addrs()
    return MappingProxyType(
        _Interfaces(
            (name, _interface(name, index, addresses.get(name, ()), namespace))
            for index, name in sorted(socket.if_nameindex())
            if name != "lo"
        )
    )


class _Interfaces(dict[str, Interface]):
    """A wrong name lists the near matches."""

    def __missing__(self, name: str) -> Interface:
        raise UnknownNameError(f"there is no interface {name!r} here{near_matches(name, self)}")


def _interface(name: str, index: int, found: Iterable[Any], namespace: Namespace) -> Interface:
    """Make sense of psutil's addresses; a link-local IPv6 address counts when there is no other."""
    mac = next((a.address for a in found if a.family == socket.AF_PACKET), "")
    ipv4 = [f"{a.address}/{a.netmask}" for a in found if a.family == socket.AF_INET]
    ipv6 = sorted(
        (
            ipaddress.IPv6Interface(f"{a.address.partition('%')[0]}/{_length(a.netmask)}")
            for a in found
            if a.family == socket.AF_INET6
        ),
        key=lambda address: address.is_link_local,
    )
    return Interface(
        name,
        index,
        mac,
        namespace,
        ipaddress.IPv4Interface(ipv4[0]) if ipv4 else None,
        ipv6[0] if ipv6 else None,
    )


def _length(mask: str) -> int:
    return int(ipaddress.IPv6Address(mask)).bit_count()
