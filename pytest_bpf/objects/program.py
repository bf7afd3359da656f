"""A loaded program: attach it, run it, read what the kernel says of it."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.info import ProgramInfo, read_info
from pytest_bpf.objects.attach import NEEDS_TARGET, Options, attach
from pytest_bpf.objects.run import Run, run_program
from pytest_bpf.objects.verifier import VerifierStats, stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.link import Link


class Program:
    """One program of an object, loaded into the kernel.

    ``type`` is libbpf's name (``"xdp"``, ``"tracepoint"``), ``section`` the ELF section that says
    it, ``verifier`` what the verifier counted when it was loaded.
    """

    def __init__(
        self,
        pointer: int,
        *,
        context_type: Type | None = None,
        load_log: str = "",
        whole_log: Callable[[str, int], str] | None = None,
        attached: Callable[[Link], None] | None = None,
    ) -> None:
        self.pointer = pointer
        self.name: str = libbpf.call("bpf_program__name", pointer).decode(errors="replace")
        section: bytes = libbpf.call("bpf_program__section_name", pointer)
        self.section = section.decode(errors="replace")
        self.type = program_type(pointer)
        self.expected_attach_type: int = libbpf.call("bpf_program__expected_attach_type", pointer)
        self.context_type = context_type
        self.verifier: VerifierStats = stats(load_log)
        self._whole_log = whole_log
        self._attached = attached
        self._autoattach = bool(libbpf.call("bpf_program__autoattach", pointer))
        self._fd: int = libbpf.call("bpf_program__fd", pointer)

    @property
    def fd(self) -> int:
        """The file descriptor; `LoadError` when it was not loaded, or its object is closed."""
        if self._fd < 0:
            raise LoadError(f"program {self.name!r} is gone: its object was closed")
        return self._fd

    @property
    def info(self) -> ProgramInfo:
        """Everything the kernel tells, now: ``struct bpf_prog_info``."""
        return read_info(self.fd, ProgramInfo)

    @cached_property
    def id(self) -> int:
        """The kernel's id of the program."""
        return int(self.info.id)

    @cached_property
    def tag(self) -> str:
        """The kernel's hash of the instructions, as 16 hex digits."""
        return bytes(self.info.tag).hex()

    @cached_property
    def verified_insns(self) -> int:
        """How many instructions the verifier processed (``bpf_prog_info``, 5.16 and later)."""
        return int(self.info.verified_insns) or self.verifier.total_insns

    @cached_property
    def prog_size(self) -> int:
        """Size in bytes after the verifier's rewriting (``xlated_prog_len``)."""
        return int(self.info.xlated_prog_len)

    @cached_property
    def prog_size_jited(self) -> int:
        """Size in bytes of the machine code (``jited_prog_len``); 0 when there is no JIT."""
        return int(self.info.jited_prog_len)

    @property
    def run_cnt(self) -> int:
        """How often it ran while statistics were on (``BPF_ENABLE_STATS``)."""
        return int(self.info.run_cnt)

    @property
    def run_time_ns(self) -> int:
        """Nanoseconds it ran in all, while statistics were on."""
        return int(self.info.run_time_ns)

    @property
    def recursion_misses(self) -> int:
        """How often it was skipped because it was running already on that CPU."""
        return int(self.info.recursion_misses)

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
        if self._attached is not None:
            self._attached(link)
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

    def close(self) -> None:
        """Forget the descriptor; its object closes it."""
        self._fd = -1

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"id {self.id}"
        return f"<Program {self.name} ({self.section}, {state})>"


def program_type(pointer: int) -> str:
    """Return libbpf's name of a program's type, as in ``"xdp"``."""
    number = libbpf.call("bpf_program__type", pointer)
    name = libbpf.call("libbpf_bpf_prog_type_str", number)
    return name.decode() if name else str(number)
