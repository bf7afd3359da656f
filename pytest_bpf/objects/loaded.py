"""A program as the kernel holds it: what it is, and what the kernel says of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.info import ProgramInfo, memlock, read_info
from pytest_bpf.objects.verifier import VerifierStats, stats

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type


@dataclass(frozen=True)
class Identity:
    """What a loaded program is, whoever loaded it.

    ``type`` is libbpf's name (``"xdp"``, ``"tracepoint"``), ``section`` the ELF section that says
    it, or the type again where nobody knows the section. ``pointer`` is libbpf's
    ``struct bpf_program *``, 0 for a program that libbpf did not load here.
    """

    fd: int
    name: str
    type: str
    section: str
    expected_attach_type: int = 0
    pointer: int = 0


def by_pointer(pointer: int) -> Identity:
    """Return what libbpf knows of a program that it loaded."""
    section: bytes = libbpf.call("bpf_program__section_name", pointer)
    return Identity(
        fd=libbpf.call("bpf_program__fd", pointer),
        name=libbpf.call("bpf_program__name", pointer).decode(errors="replace"),
        type=program_type(pointer),
        section=section.decode(errors="replace"),
        expected_attach_type=libbpf.call("bpf_program__expected_attach_type", pointer),
        pointer=pointer,
    )


class LoadedProgram:
    """A loaded program: its `Identity`, and what the kernel tells of it.

    ``context_type`` is what its argument points to, ``verifier`` what the verifier counted.
    """

    def __init__(
        self, what: Identity, *, context_type: Type | None = None, load_log: str = ""
    ) -> None:
        self.name = what.name
        self.type = what.type
        self.section = what.section
        self.expected_attach_type = what.expected_attach_type
        self.pointer = what.pointer
        self.context_type = context_type
        self.verifier: VerifierStats = stats(load_log)
        self._fd = what.fd

    @property
    def fd(self) -> int:
        """The file descriptor; `LoadError` when it was not loaded, or is closed."""
        if self._fd < 0:
            raise LoadError(
                f"program {self.name!r} is gone: its object was closed, or it was itself"
            )
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
    def memlock(self) -> int:
        """Memory in bytes of its instructions (``/proc/self/fdinfo``), the machine code not."""
        return memlock(self.fd)

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

    def close(self) -> None:
        """Forget the descriptor; its object closes it."""
        self._fd = -1

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"id {self.id}"
        return f"<Program {self.name} ({self.section}, {state})>"


def program_type(pointer: int) -> str:
    """Return libbpf's name of a program's type, as in ``"xdp"``."""
    return type_name(libbpf.call("bpf_program__type", pointer))


def type_name(number: int) -> str:
    """Return libbpf's name of ``enum bpf_prog_type``; the number where it has none."""
    name = libbpf.call("libbpf_bpf_prog_type_str", number)
    return name.decode() if name else str(number)
