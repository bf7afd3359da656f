"""Start an agent in a cgroup of its own, where it sees tracefs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AgentError
from pytest_bpf.kernel.sys.own_mounts import own_mounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_bpf.cgroup import Cgroup
    from pytest_bpf.netns import Namespace

KILL_SCRIPT = """
read _
echo 1 >"$0/cgroup.kill" || kill -9 $(cat "$0/cgroup.procs" "$0"/*/cgroup.procs)
rmdir "$0"/*/ "$0"
"""
"""Run beside an agent: its input ends with this process, however that ends."""


def command_words(command: str | Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return a command's words: a string is split as a shell does, and no shell runs it."""
    words = (
        shlex.split(command) if isinstance(command, str) else [os.fspath(word) for word in command]
    )
    if not words:
        raise AgentError("an agent is a command, and this one is empty")
    return words


def start(
    words: Sequence[str],
    cgroup: Cgroup,
    *,
    namespace: Namespace | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pins: Path | None = None,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command in a cgroup, and in a network namespace if one is given.

    ``env`` is added to this process's environment. Returns the process, and the descriptor of the
    pipe to which it prints. With ``pins``, that directory is its /sys/fs/bpf. It dies with this
    process, and with the cgroup. Raises `AgentError` when there is no such command.
    """
    environment = {**os.environ, **(env or {})}
    program = shutil.which(words[0], path=environment.get("PATH"))
    if not program and cwd is not None and "/" in words[0]:
        program = shutil.which(cwd / words[0])
    if not program:
        raise AgentError(f"cannot start {words[0]!r}: there is no such command on PATH")
    command = [program, *words[1:]]
    output, write_end = os.pipe()
    options: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": write_end,
        "stderr": subprocess.STDOUT,
        "env": environment,
        "cwd": cwd,
        "prepare": partial(own_mounts, pins),
    }
    try:
        if namespace is None:
            return cgroup.popen(command, **options), output
        return namespace.run(lambda: cgroup.popen(command, **options)), output
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(write_end)


def guard(cgroup: Cgroup) -> subprocess.Popen[bytes]:
    """Start what kills all in a cgroup when this process is gone; closing its input ends it."""
    return subprocess.Popen(
        ["sh", "-c", KILL_SCRIPT, str(cgroup.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
