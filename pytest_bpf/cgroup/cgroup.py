"""Private cgroups, for programs that attach to one."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pytest_bpf.cgroup import cgroupfs
from pytest_bpf.cgroup.membership import visit
from pytest_bpf.errors import PlaceError, PrivilegeError, UnavailableError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys.names import claim, release, unique_name
from pytest_bpf.kernel.sys.processes import Children
from pytest_bpf.kernel.sys.worker import PATIENCE, Worker

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from typing_extensions import Self

P = ParamSpec("P")
T = TypeVar("T")


@checked_methods
class Cgroup:
    """A cgroup v2 directory below the one this process is in, on a unified or a hybrid mount.

    The limits and programs that hold for the test hold here too. ``path`` is the directory and
    ``id`` its kernfs inode, which is what ``bpf_get_current_cgroup_id()`` returns. Close it, or use
    ``with``; what a killed run left is removed by `pytest_bpf.netns.places.sweep`.
    Raises `UnavailableError` where no cgroup can be made.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or claim(cgroupfs.current() / unique_name(), cgroupfs.remove)
        self._children: list[Cgroup] = []
        self._processes = Children()
        self._workers: list[Worker] = []
        try:
            self.path.mkdir(mode=0o755)
        except FileExistsError:
            raise PlaceError(f"the cgroup {self.path} exists; choose another name") from None
        except PermissionError as error:
            action = f"making a cgroup in {self.path.parent}"
            raise PrivilegeError(action, *cgroupfs.WRITING, remedy=cgroupfs.REMEDY) from error
        except OSError as error:
            raise UnavailableError(
                f"no cgroup can be made in {self.path.parent}: {error.strerror}"
            ) from error
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.id = os.fstat(self._descriptor).st_ino
        self._end = weakref.finalize(
            self,
            _close,
            self.path,
            self._descriptor,
            maker=os.getpid(),
            children=self._children,
            processes=self._processes,
            workers=self._workers,
        )

    def __repr__(self) -> str:
        return f"<Cgroup {self.path}{'' if self._end.alive else ', closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the directory's descriptor, to attach to; raise `PlaceError` when closed."""
        if not self._end.alive:
            raise PlaceError(f"the cgroup {self.path.name} is closed; make a new one")
        return self._descriptor

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` while this process is in the cgroup, and bring the process back.

        All of the process is there meanwhile, its other threads too; the sockets that are made
        there belong to the cgroup for good. Raises `PlaceError` after `close`, and when another
        thread keeps the process in another cgroup.
        """
        self.fileno()
        with visit(self.path):
            return function(*args, **kwargs)

    def popen(
        self, command: Sequence[str], *, prepare: Callable[[], object] | None = None, **kwargs: Any
    ) -> subprocess.Popen[Any]:
        """Start a process in the cgroup; it is killed by `close` and with the test process.

        It has the caller's network namespace: ``namespace.run(cgroup.popen, command)`` puts it
        into both. ``prepare`` is called first, in the thread that starts it. ``kwargs`` are those
        of `subprocess.Popen`, without ``shell``.
        """
        self.fileno()
        worker = Worker(f"cgroup {self.path.name}")  # it lives as long as the process may
        self._workers.append(worker)
        if prepare is not None:
            worker.run(prepare)
        return self.run(lambda: worker.run(self._processes.start, command, **kwargs))

    def child(self, name: str) -> Cgroup:
        """Make a cgroup below this one; closing this one closes it too."""
        self.fileno()
        if name in {"", ".", ".."} or "/" in name or "\0" in name or name.startswith("cgroup."):
            raise PlaceError(f"{name!r} is no name for a cgroup: it is to be one plain file name")
        child = Cgroup(self.path / name)
        self._children.append(child)
        return child

    def close(self) -> None:
        """Kill what runs inside, wait until it is gone, and remove the cgroup. Repeatable.

        Raises `PlaceError` from inside `run`, or when it cannot be removed.
        """
        if self._end.alive and cgroupfs.current().is_relative_to(self.path):
            raise PlaceError(
                f"this process is in the cgroup {self.path.name}, which can only be closed from "
                "outside; close it after run()"
            )
        self._end()


def _close(
    path: Path,
    descriptor: int,
    *,
    maker: int,
    children: list[Cgroup],
    processes: Children,
    workers: list[Worker],
) -> None:
    if os.getpid() != maker:
        return
    try:
        for child in children:
            child.close()
        processes.end()
        cgroupfs.remove(path)
        release(path)
    except OSError as error:
        raise PlaceError(f"the cgroup {path} cannot be removed: {error.strerror}") from error
    finally:
        os.close(descriptor)
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.join(PATIENCE)
