"""The process that waits, warm, for its command, and becomes it."""

from __future__ import annotations

import fcntl
import gc
import importlib
import io
import json
import os
import random
import runpy
import signal
import socket
import sys
import tempfile
import termios
import traceback
import types
from contextlib import suppress
from typing import Any, NoReturn

from pytest_bpf.vm.guest import execnet_code, warm

TWISTER_WORDS = 624
"""The state of numpy's global generator (MT19937): all of it is random, and used up."""


def wait(supervisor: socket.socket) -> NoReturn:
    """Warm up, say so, wait for the command; then leave this process as it does."""
    os.setsid()
    warm.warm_up()
    execnet_code.prepare()
    gc.collect()
    gc.freeze()
    supervisor.send(b"!")
    _, descriptors, _, _ = socket.recv_fds(supervisor, 1, 5)
    new_root, message, *streams = descriptors
    os.fchdir(new_root)
    os.chroot(".")
    os.close(new_root)
    os.lseek(message, 0, os.SEEK_SET)
    with os.fdopen(message, "rb") as file:
        request = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if request["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    own, line = os.getpid(), _file(supervisor)
    status = _run(request)
    from pytest_bpf.kernel.sys import processes  # noqa: PLC0415 (imported by the warm-up)

    def end(code: int) -> None:
        """Say so: freeing a process takes a guest long, and the machine ends with it."""
        with suppress(OSError):  # the command may have closed it, and opened another
            if os.getpid() == own and _file(supervisor) == line:  # and no child that was forked
                for number in range(3):
                    with suppress(OSError):
                        os.close(number)
                supervisor.send(bytes([code]))

    processes.leave(status, end)


def _file(used: socket.socket) -> tuple[int, int]:
    status = os.fstat(used.fileno())
    return status.st_dev, status.st_ino


def _run(request: dict[str, Any]) -> int:
    os.environ.clear()
    os.environ.update(request["environment"])
    try:
        os.chdir(request["folder"])
    except OSError as error:
        print(f"pytest-bpf: {request['folder']}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 126
    if request["inline"] is None:
        return _execute(request["command"])
    _refresh(request)
    return _inline(**request["inline"])


def _execute(command: list[str]) -> NoReturn:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 (the command itself)
    except OSError as error:
        os.write(2, f"pytest-bpf: {command[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _refresh(request: dict[str, Any]) -> None:
    """Make this Python one that was started now, in the folder and with the paths of the host's."""
    random.seed()
    if (generator := sys.modules.get("numpy.random")) and (numpy := sys.modules.get("numpy")):
        words = numpy.frombuffer(os.urandom(TWISTER_WORDS * 4), "u4")  # seed() takes 50 ms longer
        generator.set_state(("MT19937", words, TWISTER_WORDS))
    if libbpf := sys.modules.get("pytest_bpf.kernel.sys.libbpf"):
        libbpf.forget_default()
    if hypothesis := sys.modules.get("hypothesis.configuration"):
        here = os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY") or f"{os.getcwd()}/.hypothesis"  # noqa: PTH109
        hypothesis.set_hypothesis_home_dir(here)
    if core := sys.modules.get("hypothesis.core"):
        core.threadlocal._hypothesis_global_random = None  # noqa: SLF001 (made when it is used)
    tempfile.tempdir = None
    tempfile._name_sequence = None  # type: ignore[attr-defined]  # noqa: SLF001 (its seed was saved)
    sys.path[:] = request["path"]
    importlib.invalidate_caches()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=request["encoding"], line_buffering=stream is sys.stderr)


def _inline(kind: str, what: str, arguments: list[str], unbuffered: bool) -> int:
    """Run ``-c`` code, an ``-m`` module or a script as Python does; return the exit code."""
    if unbuffered:
        raw = io.FileIO(1, "w", closefd=False)
        sys.stdout = io.TextIOWrapper(raw, encoding=sys.stdout.encoding, write_through=True)
    try:
        if kind == "-c":
            sys.argv[:] = ["-c", *arguments]
            sys.path.insert(0, "")
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            main.__dict__["__builtins__"] = __builtins__
            execnet_code.install(main.__dict__)
            exec(compile(what, "<string>", "exec"), main.__dict__)  # noqa: S102 (what was asked)
        elif kind == "-m":
            sys.argv[:] = [what, *arguments]
            sys.path.insert(0, os.getcwd())  # noqa: PTH109
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = [what, *arguments]
            sys.path.insert(0, os.path.dirname(os.path.realpath(what)))  # noqa: PTH120
            runpy.run_path(what, run_name="__main__")
    except SystemExit as error:
        return _code(error)
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:  # noqa: BLE001 (whatever ends a program is printed, as Python does)
        traceback.print_exc()
        return 1
    return 0


def _code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF  # a negative one would be a signal
    print(error.code, file=sys.stderr)  # noqa: T201
    return 1
