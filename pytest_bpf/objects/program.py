"""A program to work with: attach it, run it, ask the verifier about it."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel import libbpf
from pytest_bpf.objects.attach import NEEDS_TARGET, attach
from pytest_bpf.objects.found import known
from pytest_bpf.objects.loaded import LoadedProgram
from pytest_bpf.objects.run import Run, run_program
from pytest_bpf.objects.targets import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.link import Link
    from pytest_bpf.objects.loaded import Identity


class Program(LoadedProgram):
    """One program, of an object or found: attach it, run it, ask the verifier about it.

    What the kernel tells of it (``id``, ``verified_insns``, ``run_cnt``, ...) is `LoadedProgram`'s.
    """

    def __init__(
        self,
        what: Identity,
        *,
        context_type: Type | None = None,
        load_log: str = "",
        whole_log: Callable[[str, int], str] | None = None,
    ) -> None:
        super().__init__(what, context_type=context_type, load_log=load_log)
        self._whole_log = whole_log
        self.attached: Callable[[Link], None] | None = None
        """What keeps its links: its object."""
        autoattach = libbpf.function("bpf_program__autoattach")
        self._autoattach = not what.pointer or bool(autoattach(what.pointer))
        self._release: Callable[[], object] | None = None

    @classmethod
    def found(cls, fd: int) -> Program:
        """Return the program of a descriptor, which is closed by `close` or with the value.

        Whoever loaded the program keeps it: it is measured, run and read here, and stays.
        """
        try:
            what, context_type = known(fd)
            return cls.owning(what, context_type=context_type)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def owning(
        cls, what: Identity, *, context_type: Type | None = None, load_log: str = ""
    ) -> Program:
        """Return a program whose descriptor is closed by `close` or with the value."""
        program = cls(what, context_type=context_type, load_log=load_log)
        program._release = weakref.finalize(program, os.close, what.fd)
        return program

    def close(self) -> None:
        """Forget the descriptor; the program stays with whoever loaded it."""
        super().close()
        self.attached = None  # its object, which has it: without a circle both go at once
        if self._release is not None:
            self._release()

    def verifier_log(self, level: int = 2) -> str:
        """Return the verifier's log; the program is loaded once more for it, and let go.

        Level 2 shows every state, at most the last 16 MB of it; level 1 the path that led to a
        refusal alone, so nothing but figures for a program that was accepted.
        """
        if self._whole_log is None:
            raise LoadError(f"program {self.name!r} was not loaded from an object of this process")
        return self._whole_log(self.name, level)

    def attach(
        self,
        target: Any = None,
        *,
        direction: str | None = None,
        mode: str | None = None,
        binary: str | os.PathLike[str] | None = None,
        function: str | None = None,
        offset: int = 0,
        provider: str | None = None,
        pid: int = -1,
        cpu: int = -1,
        frequency: int = 1000,
    ) -> Link:
        """Attach the program, and return the link; it is detached with its object at the latest.

        ====================================  ===================================================
        program                               ``target`` and options
        ====================================  ===================================================
        tracepoint, raw_tp, kprobe            none, or the hook: ``"syscalls:sys_enter_read"``
        tp_btf, fentry, fexit, LSM            none: the section names the hook
        uprobe, uretprobe                     ``binary``, ``function`` and/or ``offset``, ``pid``
        USDT                                  ``binary``, ``provider``, ``function`` (the probe)
        XDP                                   an interface; ``mode`` "native" or "generic"
        tc                                    an interface; ``direction`` "ingress" or "egress"
        cgroup_*, sockops                     a cgroup
        sk_lookup, flow_dissector             a network namespace
        sk_skb, sk_msg                        a sockmap
        socket filter, reuseport              a socket
        perf_event                            ``frequency`` in Hz; ``pid``, ``cpu``, else all CPUs
        iterator                              none, or a map to iterate over; then `Link.read`
        ====================================  ===================================================

        Raises `AttachError` with the kernel's reason, and `UnavailableError` when this kernel
        attaches no program of that kind.
        """
        options = Options(
            direction=direction,
            mode=mode,
            binary=binary,
            function=function,
            offset=offset,
            provider=provider,
            pid=pid,
            cpu=cpu,
            frequency=frequency,
        )
        self.fd  # noqa: B018 (a closed program is said before a target is)
        link = attach(self, target, options)
        if self.attached is not None:
            self.attached(link)
        return link

    def test_run(
        self,
        data: bytes = b"",
        context: Any = None,
        *,
        repeat: int = 1,
        cpu: int | None = None,
        live: bool = False,
        batch_size: int = 0,
    ) -> Run:
        """Run the program without attaching it (``BPF_PROG_RUN``), and return what it gave.

        ``data`` is the packet of a packet program; ``context`` a dict of members, a sequence of
        64-bit words (raw tracepoints) or bytes; ``cpu`` where to run (raw tracepoints); ``live``
        sends XDP frames on for real, ``batch_size`` at a time. Raises `RunError` with the reason,
        also for program types that the kernel cannot test-run.
        """
        return run_program(
            self,
            bytes(data),
            context,
            repeat=repeat,
            cpu=cpu,
            live=live,
            batch_size=batch_size,
        )

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
        """Whether its section says where to attach it, so that `Object.attach` does."""
        return "/" in self.section and self._autoattach and self.type not in NEEDS_TARGET
