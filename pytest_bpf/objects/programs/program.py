"""A program to work with: attach it, run it, read the verifier's log."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError, LoadError
from pytest_bpf.errors.arguments import checked_methods
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kinds.programs import names_target
from pytest_bpf.objects.identity import kernel_identity
from pytest_bpf.objects.link.attach import attach
from pytest_bpf.objects.programs.loaded import LoadedProgram
from pytest_bpf.objects.programs.run import Run, run_packet, run_program
from pytest_bpf.objects.programs.verifier import has_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Unpack

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.identity import Identity
    from pytest_bpf.objects.link.link import Link
    from pytest_bpf.objects.link.options import AttachOptions

ONCE, NO_BATCH = 1, 0
"""The small numbers that `Program.test_run` has for options that are left out."""

LAST_RUNS = 4
"""How many test runs a program remembers."""


@checked_methods
class Program(LoadedProgram):
    """One program, of an object or by its descriptor: attach it, run it, read the verifier's log.

    The kernel's figures (``id``, ``verified_insns``, ``run_cnt``, ...) are in `LoadedProgram`.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        context_type: Type | None = None,
        load_log: str = "",
        whole_log: Callable[[str, int], str] | None = None,
        attach_target: Any = None,
        has_target: bool = False,
    ) -> None:
        """Take over a loaded program.

        ``attach_target`` is what `attach` attaches to by default; ``has_target`` tells that it is
        known where, though the section does not say it.
        """
        super().__init__(identity, context_type=context_type, load_log=load_log)
        self._whole_log = whole_log
        self._attach_target = attach_target
        self._has_target = has_target
        self.keep_link: Callable[[Link], None] | None = None
        """Called with each new link; its object keeps them."""
        autoattach = libbpf.function("bpf_program__autoattach")
        self._autoattach = not identity.pointer or bool(autoattach(identity.pointer))
        self._release: Callable[[], object] | None = None
        self.content = b""
        """The object file that it was loaded from; empty where there was none."""
        self.load_target: Program | None = None
        """The program that it attaches to, where the load fixed that."""
        self.last_runs: deque[tuple[bytes, Any, Run]] = deque(maxlen=LAST_RUNS)
        """What `test_run` was given last, packet and context, and what it returned."""
        self.recording: Any = None
        """What counts the lines of its runs; None when nothing does."""

    @classmethod
    def from_fd(cls, fd: int) -> Program:
        """Return the program of a descriptor, which `close` or the end of the value closes.

        The program itself stays loaded as long as its loader keeps it.
        """
        try:
            identity, context_type = kernel_identity(fd)
            return cls.from_identity(identity, context_type=context_type)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def from_identity(
        cls, identity: Identity, *, context_type: Type | None = None, load_log: str = ""
    ) -> Program:
        """Return a program that owns its descriptor: `close` or the end of the value closes it."""
        program = cls(identity, context_type=context_type, load_log=load_log)
        program._release = weakref.finalize(program, os.close, identity.fd)
        return program

    def close(self) -> None:
        """Close the descriptor; the program stays loaded as long as its loader keeps it."""
        super().close()
        self.keep_link = None  # no reference cycle with its object
        if self._release is not None:
            self._release()

    def verifier_log(self, level: int = 2) -> str:
        """Return the verifier's log; the program is loaded once more when it has none at ``level``.

        `Loader.load` with ``log_level=`` keeps the log of the load itself, which is returned then.
        Level 2 shows every state (the last 16 MB of the log at most). Level 1 shows the path that
        led to a refusal, and only figures for a program that the verifier accepts.
        """
        if has_level(self._load_log, level):
            return self._load_log
        if self._whole_log is None:
            raise LoadError(f"program {self.name!r} was not loaded from an object of this process")
        return self._whole_log(self.name, level)

    def attach(self, target: Any = None, **options: Unpack[AttachOptions]) -> Link:
        """Attach the program, and return the link; it is detached with its object at the latest.

        ==============================  =========================================================
        program                         ``target`` and options
        ==============================  =========================================================
        tracepoint, raw_tp, kprobe      none, or the hook: ``"syscalls:sys_enter_read"``
        tp_btf, fentry, fexit, LSM      none: the section names the hook
        kprobe.multi                    none, or a pattern
        uprobe, uretprobe               ``binary``, ``function`` and/or ``offset``, ``pid``
        USDT                            ``binary``, ``provider``, ``function`` (the probe), ``pid``
        XDP                             an interface; ``mode`` "native" or "generic"; ``replace``
        tc                              an interface; ``direction``, ``priority``, ``handle``,
                                        ``chain``
        tcx, netkit                     an interface; ``before``, ``after``, ``first``, ``last``
        tc, tcx                         ``mode`` "clsact" or "tcx" says by which of the two
        cgroup_*, sockops               a cgroup; ``mode`` "multi", "override" or "exclusive"
                                        attaches without a link; ``replace``, ``preorder``
        netfilter                       a network namespace; ``hook``, ``family``, ``priority``
        sk_lookup, flow_dissector       a network namespace
        lwt_in, lwt_out, lwt_xmit       the route to a network, ``"192.0.2.0/24"``; ``netns``
        sk_skb, sk_msg                  a sockmap
        socket filter, reuseport        a socket
        perf_event                      ``frequency`` in Hz; ``pid``, ``cpu``, else all CPUs
        iterator                        none, or what to iterate over: a map; ``pid`` or ``tid``;
                                        a cgroup and ``order``; ``netns``; then
                                        `Link.read`
        ==============================  =========================================================

        Programs of tracing take a ``cookie`` (``bpf_get_attach_cookie``). ``before``, ``after``
        and ``replace`` take a program, the first two also a link.

        Raises `AttachError` with the kernel's reason, and `UnavailableError` when this kernel
        attaches no program of that kind.
        """
        if target is None:
            target = self._attach_target
        self.fd  # noqa: B018 (a closed program raises before a wrong target does)
        link = attach(self, target, options)
        if self.keep_link is not None:
            self.keep_link(link)
        return link

    def attach_many(self, targets: Iterable[Any], **options: Unpack[AttachOptions]) -> list[Link]:
        """Attach the program to each of several targets, and return the links in their order.

        A mapping stands for its values: ``attach_many(router.interfaces)``. The options are those
        of `attach`. When one target is refused, none stays attached.
        """
        if isinstance(targets, (str, bytes)):
            raise AttachError(
                f"attach_many takes several targets, [{targets!r}], not one, {targets!r}"
            )
        several = targets.values() if isinstance(targets, Mapping) else targets
        with ExitStack() as attached:
            links = [attached.enter_context(self.attach(each, **options)) for each in several]
            attached.pop_all()
        return links

    def test_run(
        self,
        data: bytes = b"",
        context: Any = None,
        *,
        repeat: int = 1,
        cpu: int | None = None,
        live: bool = False,
        batch_size: int = 0,
        netns: Any = None,
    ) -> Run:
        """Run the program once without attaching it (``BPF_PROG_RUN``), and return the result.

        ``data`` is the packet of a packet program. ``context`` is a dict of members, the context of
        an earlier `Run`, a sequence of 64-bit words (raw tracepoints) or bytes. ``cpu`` is the CPU
        to run on (raw tracepoints). ``live`` sends XDP frames on for real, ``batch_size`` at a
        time. The program runs in the network namespace ``netns``: its helpers find the sockets,
        routes and interfaces of that one. An `Interface` as ``ifindex`` or ``ingress_ifindex`` of
        the context does the same. Raises `RunError` with the kernel's reason and with the members
        of the context that it refused, and `ValueTypeError` for values of a wrong type.
        """
        if self.recording is None:
            if (
                type(data) is bytes
                and context is netns is cpu is None
                and repeat is ONCE
                and live is False
                and batch_size is NO_BATCH
            ):
                run = run_packet(self, data)
            else:
                run = run_program(self, data, context, repeat, cpu, live, batch_size, netns)
        else:
            run = self.recording.record(
                partial(run_program, self, data, context, repeat, cpu, live, batch_size, netns)
            )
        self.last_runs.append((data, context, run))
        return run

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin the program to a path on a bpffs; it lives until that path is removed."""
        try:
            libbpf.call("bpf_obj_pin", self.fd, os.fsencode(path))
        except OSError as error:
            raise LoadError(
                f"program {self.name!r} cannot be pinned to {os.fspath(path)}: {error.strerror}; "
                "is that on a bpffs?",
                error.errno or 0,
            ) from None

    @property
    def auto_attachable(self) -> bool:
        """Whether its section or ``attach_to=`` says where, so that `Object.attach` does it."""
        if self._has_target:
            return self._autoattach
        return self._autoattach and names_target(self.type, self.section)
