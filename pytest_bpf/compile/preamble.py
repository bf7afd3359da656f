"""The beginning of a source, parsed once: its includes as a precompiled header of clang's.

Most of a compilation goes into ``vmlinux.h``. A process that compiles one source again and again,
with another small change each time, adds a `Cache` to `STORES`; from the second time on, sources
that begin with the same includes, in the same folder and with the same options, are compiled behind
these. The object is the same, but for the order of its BTF types. Where clang has anything to say,
it is asked again without, so that its messages are the same, too.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import Cache, digest
from pytest_bpf.compile.dependencies import absent, headers_of
from pytest_bpf.compile.headers import Header, recheck
from pytest_bpf.compile.process import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.compile.command import Task

STORES: list[Cache] = []
"""Where beginnings are kept, the newest last; without one, sources are compiled as a whole."""

COMMENT = rb"/\*(?:[^*]|\*(?!/))*\*/"
LINE = re.compile(
    rb"(?:[^\S\n]|\\\n|%(comment)b)*"
    rb"(?:#[^\S\n]*(?P<word>include|define|undef)\b(?:[^\n\\/]|\\\n?|/(?![*/])|%(comment)b)*)?"
    rb"(?://(?:[^\n\\]|\\\n?)*)?\n" % {b"comment": COMMENT}
)
"""A line before the first declaration: blank, a comment, or a directive without a condition."""

ALONE = ("-E", "-M", "-include", "-imacros", "-iquote", "-fsyntax-only")
"""How options begin by which a beginning would not do what it does in its source."""

SEEN, UNFIT = b"seen", b"unfit"
"""What a store says of a beginning that has none yet: it came once; clang does not take it."""


@dataclass(frozen=True)
class Preamble:
    """A precompiled beginning of ``size`` bytes: ``text`` is the file that it was made of."""

    store: Cache
    key: str
    text: Path
    size: int

    @property
    def arguments(self) -> tuple[str, ...]:
        """What makes clang start behind it."""
        precompiled = self.store.folder / "objects" / self.key
        skip = ("-Xclang", f"-preamble-bytes={self.size},1")
        return ("-include-pch", str(precompiled), *skip)

    def drop(self) -> None:
        """Compile sources of this beginning as a whole from now on."""
        self.store.write(UNFIT, "preambles", self.key)


def length(source: bytes) -> int:
    r"""Return how many bytes a source's leading includes take, 0 without any.

    >>> length(b'/* It\ncounts. */\n#include "a.h"\n#define B 1\n#include <c.h>\nint d;\n')
    59
    """
    end = at = 0
    while line := LINE.match(source, at):
        at = line.end()
        if line["word"] == b"include":
            end = at
    return end


def find_preamble(task: Task, extra: Sequence[str], timeout: float) -> Preamble | None:
    """Return the precompiled beginning of a source, made when it comes for the second time."""
    size = length(task.source.content) if STORES else 0
    if not size or any(word.startswith(ALONE) for word in task.arguments):
        return None
    store, folder = STORES[-1], str(task.source.path.parent)
    key = digest(
        *(task.source.content[:size], folder, str(Path.cwd()), task.compiler.identity),
        *(*task.arguments, *extra),
        *(os.environ.get(variable, "") for variable in ("CPATH", "C_INCLUDE_PATH")),
    )
    preamble = Preamble(store, key, store.folder / "sources" / f"{key}.h", size)
    with store.lock(key[:2]):
        known = store.read("preambles", key)
        if known is None:
            store.write(SEEN, "preambles", key)
        elif known != UNFIT and (_holds(known) or _make(preamble, task, extra, timeout)):
            return preamble
    return None


def _holds(known: bytes) -> bool:
    """Say whether the headers are what they were, and no other one would be included instead."""
    if known == SEEN:
        return False
    headers, missing = json.loads(known)
    now = time.time_ns()
    return not any(map(os.path.lexists, missing)) and all(
        recheck(Header(*header), now) for header in headers
    )


def _make(preamble: Preamble, task: Task, extra: Sequence[str], timeout: float) -> bool:
    """Precompile a beginning; return whether clang does it without a word."""
    store, key = preamble.store, preamble.key
    store.write(task.source.content[: preamble.size], "sources", preamble.text.name)
    beginning = replace(task, source=replace(task.source, path=preamble.text))
    beside = ("-iquote", str(task.source.path.parent))
    with store.workspace() as folder:
        done = run(beginning, (*extra, *beside), folder, timeout, language="c-header")
        if done.code or done.output or not done.object.exists():
            preamble.drop()
            return False
        files = [file for file in done.files() if file != str(preamble.text)]
        store.adopt(done.object, "objects", key)
    headers = headers_of(store, task, files)
    record = [[astuple(header) for header in headers], absent(store, task, headers)]
    store.write(json.dumps(record).encode(), "preambles", key)
    return True
