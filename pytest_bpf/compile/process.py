"""Running the compiler once, in a folder of its own, never for ever."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.compile.headers import parse_dependencies
from pytest_bpf.errors import CompileError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.compile.command import Task


@dataclass(frozen=True)
class CompilerRun:
    """What one run of the compiler left in ``folder``: its exit ``code`` and all it printed.

    ``made`` are files that it read and no user wrote.
    """

    folder: Path
    code: int
    output: str
    made: tuple[str, ...] = ()

    @property
    def object(self) -> Path:
        """The object file; it exists when the run succeeded."""
        return self.folder / "object"

    def files(self) -> list[str]:
        """Return the absolute paths of all files the compiler read, the source among them."""
        rule = (self.folder / "rule").read_text(errors="surrogateescape")
        files = (str(Path(file).absolute()) for file in parse_dependencies(rule))
        return [file for file in files if file not in self.made]


def run(
    task: Task, extra: Sequence[str], folder: Path, timeout: float, *, language: str = "c"
) -> CompilerRun:
    """Compile in ``folder`` with the ``extra`` arguments; ``timeout`` is in seconds.

    ``language`` is clang's name of it.

    Raises `CompileError` when time is up and `UnavailableError` when the compiler cannot be
    started; an exit code other than 0 is the caller's to explain.
    """
    command = [
        *(*task.arguments, *extra),
        *("-MD", "-MT", "object", "-MF", str(folder / "rule"), "-o", str(folder / "object")),
        *("-x", language, "-c", str(task.source.path)),
    ]
    try:
        code, printed = _finish(command, timeout)
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            f"{task.source.display_name}: {task.compiler} did not finish in {timeout:g} s "
            "and was killed",
            (error.output or b"").decode(errors="replace"),
        ) from None
    except OSError as error:
        raise UnavailableError(f"{command[0]} cannot be run: {error.strerror}") from None
    return CompilerRun(folder, code, printed.decode(errors="replace"))


def _finish(command: list[str], timeout: float) -> tuple[int, bytes]:
    """Run ``command`` in a process group of its own, so that nothing of it stays behind.

    It is started by another thread: Ctrl-C is raised in the main one, so it never comes between
    the start of a process and its being known here.
    """
    with ThreadPoolExecutor(max_workers=1) as starter:
        starting = starter.submit(
            subprocess.Popen,
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            # the end of the output, unlike the exit, is noticed at once although there is a limit
            printed, _ = starting.result().communicate(timeout=timeout)
        except BaseException:
            if starting.exception() is None:
                with suppress(ProcessLookupError):
                    os.killpg(starting.result().pid, signal.SIGKILL)
                starting.result().__exit__(None, None, None)
            raise
        return starting.result().returncode, printed
