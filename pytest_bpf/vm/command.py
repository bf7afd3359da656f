"""Which commands run in the warm Python: those that the same Python would run, plainly started."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FROZEN = ("PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONWARNINGS")
"""Variables that Python reads only when it starts: with these it has to be started."""


@dataclass(frozen=True)
class Inline:
    """A command as the warm Python takes it: ``kind`` is ``-c``, ``-m`` or empty for a script."""

    kind: str
    what: str
    arguments: list[str]
    unbuffered: bool


def inline(command: Sequence[str]) -> Inline | None:
    """Return how the warm Python runs ``command``; None when it has to be started in the guest.

    >>> inline([sys.executable, "-u", "-c", "pass", "x"])
    Inline(kind='-c', what='pass', arguments=['x'], unbuffered=True)
    >>> inline(["uname", "-r"])
    """
    program, *words = command
    if not _is_this_python(program) or any(os.environ.get(name) for name in FROZEN):
        return None
    unbuffered = words[:1] == ["-u"]
    words = words[unbuffered:]
    if words[:1] in (["-c"], ["-m"]) and len(words) > 1:
        return Inline(words[0], words[1], list(words[2:]), unbuffered)
    if words and not words[0].startswith("-"):
        return Inline("", words[0], list(words[1:]), unbuffered)
    return None


def _is_this_python(program: str) -> bool:
    path = shutil.which(program)
    return path is not None and os.path.abspath(path) == sys.executable  # noqa: PTH100
