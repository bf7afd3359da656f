"""``python -m pytest_bpf.plugin.warm FOLDER [--lazy]``: a process that forks for each session.

It runs the tests of a folder first, which imports what sessions of pytest need. Then each line of
its input is a session: the folder, the arguments, where its output goes, and the seconds that it
may take. A line of its output is the exit status, or null for a session that took longer.

What a session imported of Python and of installed packages, the process imports before the next
one, unless it is ``--lazy``; modules of the tests' own folder are imported by each session. What
the sources of sessions begin with is parsed once (`pytest_bpf.compile.preamble`).
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import sysconfig
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook

if TYPE_CHECKING:
    from collections.abc import Iterable

INSTALLED = tuple(
    f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
"""Where Python and installed packages are."""

OWN = "pytest_bpf"


def serve(folder: str, *, lazy: bool) -> None:
    """Run what the standard input asks for until it ends; answer with an exit status each."""
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    for name in [name for name in sys.modules if name.partition(".")[0] == OWN]:
        del sys.modules[name]  # pytest imports its plugins itself, and warns when they are there
    pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={folder}", folder])
    sys.modules.pop("test_warm", None)
    from pytest_bpf.cache import Cache
    from pytest_bpf.compile.preamble import STORES

    STORES.append(Cache(Path(folder, "beginnings")))
    imports, known = Path(folder, "imports"), set(sys.modules)
    for line in sys.stdin:
        imports.unlink(missing_ok=True)
        json.dump(_fork(json.loads(line), imports), answers)
        answers.write("\n")
        answers.flush()
        if imports.exists() and not lazy:
            names = imports.read_text("utf-8").split()
            _import(name for name in names if name not in known)
            known.update(names)


def _fork(asked: dict[str, Any], imports: Path) -> int | None:
    """Run a session in a child; return its exit status."""
    from pytest_bpf.kernel.sys import processes

    gc.collect()
    gc.freeze()  # what is there already, no session looks through for garbage
    child = processes.fork()  # threads of the first session are idle
    if not child:
        _session(asked, imports)
    pidfd = os.pidfd_open(child)
    try:
        ended = processes.ends(pidfd, asked["seconds"])
    finally:
        os.close(pidfd)
    if not ended:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if ended else None


def _session(asked: dict[str, Any], imports: Path) -> None:
    """Run pytest in this process, which ends with it, and takes down what it made, as any other."""
    from pytest_bpf.kernel.sys import processes

    status = 3
    try:
        os.setsid()
        output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(asked["folder"])
        sys.path[0] = asked["folder"]
        status = int(pytest.main(asked["arguments"]))
        imports.write_text(" ".join(filter(_is_installed, list(sys.modules))), "utf-8")
    finally:
        processes.leave(status)


def _is_installed(name: str) -> bool:
    """Say whether a module is the same for every session: Python's, ours, of a package.

    One whose assertions pytest has rewritten it wants to import itself.
    """
    spec = getattr(sys.modules[name], "__spec__", None)
    if name.partition(".")[0] == OWN:
        return True
    own_loader = isinstance(getattr(spec, "loader", None), AssertionRewritingHook)
    return not own_loader and str(getattr(spec, "origin", None)).startswith(INSTALLED)


def _import(names: Iterable[str]) -> None:
    for name in names:
        with suppress(Exception):  # then a session imports it, or says why it cannot
            import_module(name)


if __name__ == "__main__":
    serve(sys.argv[1], lazy="--lazy" in sys.argv)
