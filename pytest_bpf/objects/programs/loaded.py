"""A loaded program: its identity and the kernel's figures."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError, NotMeasuredError, UnavailableError
from pytest_bpf.kernel.programs.run_time_stats import counted_since
from pytest_bpf.kernel.sys.info import ProgramInfo, memlock, read_info
from pytest_bpf.kernel.values.actions import actions
from pytest_bpf.kinds.programs import program_kind
from pytest_bpf.objects.programs import dumps
from pytest_bpf.objects.programs.context import FLOW_DISSECTOR
from pytest_bpf.objects.programs.verifier import VerifierStats, stats

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.kinds.program_kind import ProgramKind
    from pytest_bpf.objects.identity import Identity
    from pytest_bpf.objects.programs.dumps import Listing


class LoadedProgram:
    """A loaded program: its `Identity`, and the kernel's figures (``struct bpf_prog_info``).

    ``context_type`` is the type that its argument points to.
    """

    def __init__(
        self, identity: Identity, *, context_type: Type | None = None, load_log: str = ""
    ) -> None:
        self.name = identity.name
        self.type = identity.type
        self.section = identity.section
        self.expected_attach_type = identity.expected_attach_type
        self.pointer = identity.pointer
        self.context_type = context_type
        self._load_log = load_log
        self._fd = identity.fd
        self._start = time.monotonic()

    @cached_property
    def verifier(self) -> VerifierStats:
        """The verifier's counts; `NotMeasuredError` for a program that another process loaded."""
        figures = stats(self._load_log)
        if not figures.total_insns:
            raise NotMeasuredError(
                f"program {self.name!r}: there is no verifier log of its load, so no statistics; "
                "load it with bpf.load()"
            )
        return figures

    @cached_property
    def kind(self) -> ProgramKind:
        """The row of its kind in the table of programs."""
        return program_kind(self.type, self.section, self.expected_attach_type)

    @cached_property
    def actions(self) -> dict[int, int]:
        """What it may return by name: the members by the unsigned 32-bit values."""
        return actions(self.type, self.kind.name)

    @cached_property
    def runs_packets(self) -> bool:
        """Whether a test run with a packet alone needs no options."""
        return self.kind.test_run == "packet" and self.type != FLOW_DISSECTOR

    @property
    def fd(self) -> int:
        """The file descriptor; raises `LoadError` after `close`."""
        if self._fd < 0:
            raise LoadError(
                f"program {self.name!r} is gone: its object was closed, or it was itself"
            )
        return self._fd

    @property
    def info(self) -> ProgramInfo:
        """The kernel's ``struct bpf_prog_info``, read now."""
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
        """Number of instructions that the verifier processed (``bpf_prog_info``, 5.16 and later).

        On older kernels by the verifier's log; `NotMeasuredError` without one.
        """
        return int(self._readable.verified_insns) or self.verifier.total_insns

    @cached_property
    def prog_size(self) -> int:
        """Size in bytes after the verifier's rewriting (``xlated_prog_len``)."""
        return int(self._readable.xlated_prog_len)

    @cached_property
    def prog_size_jited(self) -> int:
        """Size in bytes of the machine code (``jited_prog_len``); 0 for an interpreted program."""
        return int(self._readable.jited_prog_len)

    @property
    def xlated(self) -> Listing:
        """The instructions as the kernel has them, with source lines: a tuple, and as text.

        Raises `UnavailableError` where the kernel does not show them to this process.
        """
        return dumps.xlated(self.fd, self.name)

    @property
    def jited(self) -> Listing:
        """The machine code, disassembled, with source lines: a tuple, and as text.

        Raises `UnavailableError` without capstone (``pytest-bpf[disasm]``), without a JIT, and
        where the kernel does not show it to this process.
        """
        return dumps.jited(self.fd, self.name)

    @property
    def memlock(self) -> int:
        """Memory in bytes of its instructions (``/proc/self/fdinfo``), without the machine code."""
        return memlock(self.fd)

    @property
    def run_cnt(self) -> int:
        """Number of runs while statistics were on (``BPF_ENABLE_STATS``).

        Raises `NotMeasuredError` when they have been off as long as the program is known here.
        """
        return self._counted("run_cnt", self.info.run_cnt)

    @property
    def run_time_ns(self) -> int:
        """Nanoseconds of all runs while statistics were on; raises as `run_cnt` does."""
        return self._counted("run_time_ns", self.info.run_time_ns)

    @property
    def recursion_misses(self) -> int:
        """Number of runs that the kernel left out, as the program ran on that CPU already.

        The kernel counts these with statistics on or off.
        """
        return int(self.info.recursion_misses)

    @property
    def _readable(self) -> ProgramInfo:
        """Its info; `UnavailableError` where the kernel hides the sizes from this process."""
        info = self.info
        if not info.xlated_prog_len:
            raise UnavailableError(
                f"the kernel shows the sizes of program {self.name!r} only with CAP_BPF and "
                "CAP_PERFMON; run as root"
            )
        return info

    def _counted(self, name: str, value: int) -> int:
        if not value and not counted_since(self._start):
            raise NotMeasuredError(
                f"program {self.name!r}: {name} is not counted, the kernel's BPF statistics are "
                "off; let it run inside 'with pytest_bpf.statistics():' or with the fixture "
                "bpf_statistics"
            )
        return int(value)

    def close(self) -> None:
        """Forget the descriptor; its object closes it."""
        self._fd = -1

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"id {self.id}"
        return f"<Program {self.name} ({self.section}, {state})>"
