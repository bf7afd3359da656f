"""What one program has cost so far."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_bpf.objects import Program


@dataclass(frozen=True)
class ProgramCost:
    """The cost of one program, by the kernel's and veristat's names.

    ``object`` is the path of the source, ``verified_insns`` a count, ``stack_depth`` and
    ``prog_size_jited`` are in bytes, ``run_time_ns`` is the nanoseconds of all ``run_cnt`` runs
    that statistics saw.
    """

    object: str
    program: str
    section: str
    verified_insns: int
    stack_depth: int
    prog_size_jited: int
    run_cnt: int
    run_time_ns: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, as they travel between processes."""
        return asdict(self)


def cost_so_far(obj: str, program: Program) -> ProgramCost:
    """Read what a loaded program has cost so far; ``obj`` is the path of its source."""
    info = program.info
    return ProgramCost(
        object=obj,
        program=program.name,
        section=program.section,
        verified_insns=program.verified_insns,
        stack_depth=program.verifier.stack_depth,
        prog_size_jited=info.jited_prog_len,
        run_cnt=info.run_cnt,
        run_time_ns=info.run_time_ns,
    )
