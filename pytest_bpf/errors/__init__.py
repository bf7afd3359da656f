"""What can go wrong, one exception a kind, each message one sentence that says what to do."""

from __future__ import annotations

import difflib
import errno
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class BpfError(Exception):
    """Base of every error this package raises on purpose."""


class UnavailableError(BpfError):
    """Something this environment cannot do: no privilege, no BTF, no compiler, no such feature.

    In a test it becomes a skip that carries the message, or a failure with ``--bpf-strict``.
    """


class NotMeasuredError(BpfError):
    """A figure that was not measured; the message says how to measure it. It is never 0 instead."""


class PrivilegeError(UnavailableError, PermissionError):
    """This process has no capability for an action: ``"listing programs"``, ``"CAP_SYS_ADMIN"``.

    ``remedy`` is what the user can do. It is a `PermissionError` too, and its ``errno`` is EPERM.
    """

    def __init__(self, action: str, *capabilities: str, remedy: str = "run as root") -> None:
        super().__init__(
            f"{action} needs {' and '.join(capabilities)}, which this process (uid {os.geteuid()}) "
            f"does not have; {remedy}"
        )
        self.errno = errno.EPERM
        self.strerror = self.args[0]

    def __str__(self) -> str:
        return str(self.args[0])


class CompileError(BpfError):
    """The compiler refused a source; ``output`` is everything it printed."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class LoadError(BpfError):
    """An object could not be opened or loaded; ``errno`` is the kernel's or libbpf's, or 0.

    ``missing`` are the bytes of memory that it lacks, where that is known before it is loaded.
    """

    def __init__(self, message: str, errno: int = 0, missing: int = 0) -> None:
        super().__init__(message)
        self.errno = errno
        self.missing = missing


class VerifierError(LoadError):
    """The verifier rejected a program.

    ``program`` is its name, ``location`` the source line as ``file:line`` (empty when the object
    has no line information), ``reason`` the verifier's own sentence and ``log`` its whole log.
    ``object`` is the path of the object.
    """

    def __init__(
        self,
        message: str,
        *,
        errno: int = 0,
        program: str = "",
        location: str = "",
        reason: str = "",
        log: str = "",
        object: str = "",  # noqa: A002 (what it is)
    ) -> None:
        super().__init__(message, errno)
        self.object = object
        self.program = program
        self.location = location
        self.reason = reason
        self.log = log


class AttachError(BpfError):
    """A program could not be attached; ``errno`` is the kernel's or libbpf's, or 0."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class RunError(BpfError):
    """The kernel refused to run a program by ``BPF_PROG_RUN``; ``errno`` says why."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class MapError(BpfError):
    """A map operation the kernel refused, or that this kind of map does not have."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class ValueTypeError(BpfError, TypeError):
    """A Python value that does not fit the C type it should become."""


class PlaceError(BpfError):
    """A namespace, an interface or a cgroup could not be made as asked."""


class StimulusError(BpfError):
    """Traffic or a workload that could not be run as asked."""


class AgentError(BpfError):
    """An agent that did not do as agents should; ``output`` is what it printed.

    It could not be started, attached nothing, died, ignored the signal to end, or left programs or
    processes behind.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class BudgetError(BpfError, AssertionError):
    """What was measured breaks its budget; the message has both figures, and by how much.

    ``findings`` are what was found of each limit that is broken.
    """

    def __init__(self, message: str, findings: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class BudgetWarning(UserWarning):
    """What was measured misses the target of its budget, and keeps the alarm."""


class CompilerWarning(UserWarning):
    """What the compiler warned about in a source, with its file and line."""


class LeakWarning(UserWarning):
    """A test left programs, maps or links open that it opened by itself."""


class UnknownNameError(BpfError, KeyError):
    """A name an object does not have; the message lists the near matches."""

    def __str__(self) -> str:
        return str(self.args[0])


MOST_NAMES, SOME_NAMES = 60, 10
"""Names that an error lists all of, and how many it lists of more."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` or the list of what there is, to end a sentence with.

    >>> near_matches("cuont", ["count", "drop"])
    "; did you mean 'count'?"
    >>> near_matches("zzz", ["count", "drop"])
    '; there are: count, drop'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3) if isinstance(name, str) else []
    if close:
        return f"; did you mean {' or '.join(repr(c) for c in close)}?"
    if len(names) > MOST_NAMES:
        return f"; there are {len(names)}: {', '.join(names[:SOME_NAMES])}, ..."
    return f"; there are: {', '.join(names)}" if names else "; there is none"


def with_article(name: str) -> str:
    """Return the name of a kind of map or program with its article.

    >>> [with_article(name) for name in ("hash", "array", "lru_hash", "xdp", "uprobe")]
    ['a hash', 'an array', 'an lru_hash', 'an xdp', 'a uprobe']
    """
    return f"{'an' if name[:1] in 'aeiolx' else 'a'} {name}"
