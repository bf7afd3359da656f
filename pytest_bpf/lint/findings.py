"""What a rule finds, and what rules are told about the target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LintOptions:
    """The target that rules judge for: its ``kernel``, ``cpus``, and ``memory`` of a map in bytes.

    ``select`` are the only rules to run, or those of the default set when it is empty; ``ignore``
    are left out.
    """

    kernel: tuple[int, int] = (6, 1)
    cpus: int = 64
    memory: int = 64 << 20
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class LintFinding:
    """One finding: where it is, the rule's name, and a sentence; ``line`` is 0 without BTF."""

    file: str
    line: int
    rule: str
    message: str
    program: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"
