"""What the processes say that save machines, on this session's standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

REASON = "pytest-bpf: "
"""What the last words begin with of a process that fails."""


def show(output: Iterable[bytes]) -> str:
    """Show progress as it comes, until there are last words: return those, which an error has."""
    said = shown = ""
    for data in output:
        said += data.decode(errors="replace")
        progress, _, _ = said.partition(REASON)
        if sys.stderr is not None:  # as in a program without a console
            sys.stderr.write(progress[len(shown) :])
            sys.stderr.flush()
        shown = progress
    return said.rpartition(REASON)[2].strip()
