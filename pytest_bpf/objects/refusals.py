"""What libbpf said when it could not load an object, as one sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAP = re.compile(r"map '(?P<name>.+?)': failed to create: (?P<why>.+?)\(-\d+\)")
PROGRAM = re.compile(r"prog '(?P<name>.+?)': BPF program load failed")
_NOISE = re.compile(
    r"failed to load object|BTF loading error|Error loading \.BTF|-- BEGIN BTF|Retrying without BTF"
    r"|: failed to load: -|failed to prepare load attributes|\.eh_frame"
)


def refused_program(said: Sequence[str]) -> str | None:
    """Return the name of the program that the kernel refused, None when it was not a program."""
    found = next((match for line in said if (match := PROGRAM.search(line))), None)
    return found["name"] if found else None


def refused_map(said: Sequence[str]) -> tuple[str, str] | None:
    """Return the name of the map that could not be created and the kernel's reason, or None."""
    found = next((match for line in said if (match := MAP.search(line))), None)
    return (found["name"], found["why"]) if found else None


def why(said: Sequence[str], otherwise: str) -> str:
    """Return the message that tells most: the first one that is neither noise nor a consequence.

    >>> why(["extern 'X' (strong): not resolved", "failed to load object 'count'"], "EINVAL")
    "extern 'X' (strong): not resolved"
    """
    telling = [line for line in said if not _NOISE.search(line)]
    return (telling or [otherwise])[0]
