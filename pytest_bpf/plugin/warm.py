"""``python -m pytest_bpf.plugin.warm FOLDER``: a process that forks for each session of pytest.

It runs the tests of a folder first, which imports what sessions need. Then each line of its input
is a session: the folder, the arguments, where its output goes, and the seconds that it may take. A
line of its output is the exit status, or null for a session that took longer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import pytest

from pytest_bpf.kernel.sys import processes


def serve(folder: str) -> None:
    """Run what the standard input asks for until it ends; answer with an exit status each."""
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={folder}", folder])
    sys.modules.pop("test_warm", None)
    for line in sys.stdin:
        asked = json.loads(line)
        child = processes.fork()  # threads of the first session are idle
        if not child:
            _session(asked)
        json.dump(_status(child, asked["seconds"]), answers)
        answers.write("\n")
        answers.flush()


def _session(asked: dict[str, Any]) -> None:
    """Run pytest in this process, which ends with it, and takes down what it made, as any other."""
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
    finally:
        processes.leave(status)


def _status(child: int, seconds: float) -> int | None:
    """Return the exit status of a process; None when it has to be killed."""
    pidfd = os.pidfd_open(child)
    try:
        ended = processes.ends(pidfd, seconds)
    finally:
        os.close(pidfd)
    if not ended:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    serve(sys.argv[1])
