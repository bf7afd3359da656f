"""Compiling as the project itself does: its own command, or the flags that it compiles with."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.compile.build import CompiledObject
from pytest_bpf.compile.diagnostics import failure, has_errors, relative_to_here
from pytest_bpf.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ONE_WORD = ("-c", "-S", "-E", "-MD", "-MMD", "-MP", "-M", "-MM", "-emit-llvm", "-v")
TWO_WORDS = ("-o", "-MF", "-MT", "-MQ", "-x", "-target", "-arch")
FOLDERS = ("-I", "-isystem", "-idirafter", "-iquote", "-include", "-isysroot", "--sysroot")
"""Options of a compile command: those that are ours to give, and those that have a path."""


@dataclass(frozen=True)
class BuildCommand:
    """A project's own command for one object.

    ``command`` is run by the shell in ``folder``; ``object`` is the file that it makes, from there.
    In both ``{source}`` stands for the source, ``{dir}`` for its folder, ``{name}`` for its name
    without ``.bpf.c`` or ``.c``; in the command, ``{object}`` for the object as ``object`` has it.
    """

    command: str
    object: str
    folder: Path

    def run(self, source: Path, timeout: float = 600.0) -> CompiledObject:
        """Build the object of ``source``; ``timeout`` is in seconds.

        Raises `CompileError` when the command fails, or makes no object.
        """
        start = time.perf_counter()
        name = source.name.removesuffix(".c").removesuffix(".bpf")
        words = {"source": str(source), "dir": str(source.parent), "name": name}
        made = self._fill(self.object, words)  # as it is written: make goes by the name
        target = self.folder / made
        quoted = {word: shlex.quote(value) for word, value in words.items()}
        command = self._fill(self.command, quoted | {"object": shlex.quote(made)})
        before = _modified(target)
        try:
            process = subprocess.run(
                ("sh", "-c", command),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CompileError(
                f"{source}: {command!r} did not finish in {timeout:g} s and was killed",
                (error.output or b"").decode(errors="replace"),
            ) from None
        output = relative_to_here()(process.stdout.decode(errors="replace"))
        code = process.returncode
        if code or has_errors(output):  # of a pipe the shell tells the last command's code alone
            content = source.read_text(errors="replace") if source.is_file() else ""
            raise failure(output, code, compiler=repr(command), source=str(source), content=content)
        if not target.is_file():
            raise CompileError(f"{source}: {command!r} made no {target}", output)
        seconds = time.perf_counter() - start
        return CompiledObject(target, source, seconds, _modified(target) == before, output)

    def _fill(self, text: str, words: dict[str, str]) -> str:
        try:
            return text.format_map(words)
        except (KeyError, ValueError, IndexError) as error:
            raise CompileError(
                f"{text!r} cannot be filled in ({error!r}): it may have {{source}}, {{dir}}, "
                "{name} and {object}; write other braces twice"
            ) from None


def project_flags(database: Path, source: Path) -> tuple[str, ...]:
    """Return the flags that a ``compile_commands.json`` has for a source; none for others.

    What says where the output goes, and for which machine it is, is left out. Relative folders
    start at the command's own. Raises `CompileError` when the file cannot be read.
    """
    try:
        entries = json.loads(database.read_bytes())
        for entry in entries:
            folder = database.parent / entry["directory"]
            if (folder / entry["file"]).resolve() == source.resolve():
                words = entry.get("arguments") or shlex.split(entry["command"])
                return tuple(_flags(words[1:], folder, entry["file"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or repr(error)
        raise CompileError(f"{database} is no usable compile_commands.json: {reason}") from None
    return ()


def _flags(words: Iterable[str], folder: Path, file: str) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if word in TWO_WORDS:
            next(rest, None)
        elif word in FOLDERS:
            yield word
            yield os.path.normpath(folder / next(rest, "."))
        elif prefix := next((p for p in FOLDERS if word.startswith(p) and p != word), None):
            yield f"{prefix}{os.path.normpath(folder / word.removeprefix(prefix))}"
        elif word not in ONE_WORD and word != file and not word.startswith("--target="):
            yield word


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
