"""From a BCC source to an `Object`: a process compiles and loads, and hands over descriptors."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pytest_bpf.bcc import child
from pytest_bpf.bcc.headers import environment
from pytest_bpf.bcc.members import struct_of, type_of
from pytest_bpf.bcc.sections import program_type, sections
from pytest_bpf.errors import BpfError, CompileError, LoadError, UnavailableError
from pytest_bpf.kernel.btf import enums
from pytest_bpf.kernel.features.privilege import privilege
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.own_mounts import start_with_own_mounts
from pytest_bpf.objects import Map, Object, Program
from pytest_bpf.objects.elf import SourceLine
from pytest_bpf.objects.identity import Identity, context_type
from pytest_bpf.objects.loading.parts import Parts
from pytest_bpf.objects.maps.template import MapTemplate
from pytest_bpf.objects.programs import verifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEBIAN_S = (Path("/usr/bin/python3"), Path("/usr/lib/python3/dist-packages/bcc/libbcc.py"))
"""Debian's Python, and what its package python3-bpfcc has for it."""

PATIENCE = 300.0
"""Seconds for compiling and loading: a guest without KVM takes a minute."""

DIAGNOSTIC = re.compile(
    r"^(?:/virtual/)?main\.c:(\d+):(\d+): (?:fatal )?error: (.*)$", re.MULTILINE
)
NO_HEADERS = re.compile(r"Unable to find kernel headers|'[\w/.]+\.h' file not found")


def load_bcc(
    text: str,
    path: Path,
    *,
    given: Mapping[str, str],
    cflags: Sequence[str] = (),
    headers: str | os.PathLike[str] | None = None,
) -> Object:
    """Compile and load a BCC source; see `Loader.load_bcc`.

    ``path`` is what it is called. Raises `UnavailableError` without BCC, headers or privilege,
    `CompileError`, `VerifierError`, `LoadError` and `UnknownNameError`.
    """
    interpreter = python()
    request = {"text": text, "cflags": list(cflags)}
    settings = {**os.environ, **environment(headers)}
    with ExitStack() as stack:
        said = stack.enter_context(tempfile.TemporaryFile())
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs:
            command = [interpreter, "-I", child.__file__, str(theirs.fileno())]
            process = start_with_own_mounts(
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    env=settings,
                    pass_fds=[theirs.fileno()],
                )
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        ours.settimeout(PATIENCE)
        return _Session(ours, path, said).load(request, text, given)


class _Session:
    """One conversation with the process; ``said`` is the file it prints to."""

    def __init__(self, channel: socket.socket, path: Path, said: BinaryIO) -> None:
        self._channel = channel
        self._path = path
        self._said = said
        self._rest = b""
        self._text = ""
        self._fds: list[int] = []

    def load(self, request: dict[str, Any], text: str, given: Mapping[str, str]) -> Object:
        self._text = text
        self._tell(request)
        chosen = sections(self._answer()["functions"], text, given, self._path.name)
        self._tell({n: enums.program_type_id(program_type(s)) for n, s in chosen.items()})
        answer = self._answer()
        programs, maps = answer["programs"], answer["maps"]
        fds = self._descriptors(len(programs) + len(maps))
        return _object(self._path, programs, maps, chosen, fds)

    def _tell(self, request: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # why it ended is said by what comes back
            self._channel.sendall(json.dumps(request).encode() + b"\n")

    def _answer(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            self._receive()
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._error(answer)
        return answer

    def _descriptors(self, count: int) -> list[int]:
        while len(self._fds) < count:
            self._receive()
        return self._fds

    def _receive(self) -> None:
        """Take what has come, bytes and descriptors."""
        try:
            more, fds, _, _ = socket.recv_fds(self._channel, 1 << 16, child.AT_ONCE)
        except TimeoutError:
            raise BpfError(f"{self._path}: BCC took more than {PATIENCE:g} s") from None
        except ConnectionResetError:
            more, fds = b"", []
        self._fds += fds
        if not more:
            raise BpfError(f"{self._path}: BCC ended without an answer: {self._last_line()}")
        self._rest += more

    def _error(self, answer: Mapping[str, Any]) -> BpfError:
        if answer["error"] == "import":
            return UnavailableError(f"BCC cannot be imported: {answer['message']}")
        if answer["error"] == "compile":
            return self._uncompiled()
        code, program, log = answer["errno"], answer["program"], answer["log"]
        missing = privilege() if not log else None
        if missing:
            return UnavailableError(f"{self._path}: cannot be loaded: {missing}")
        if not verifier.reason(log):
            return LoadError(
                f"{self._path}: the kernel refuses program {program!r} before verifying it: "
                f"{libbpf.reason(code)}; is it of the right kind? sections= says it",
                code,
            )
        lines = enumerate(
            self._text.splitlines(), 1
        )  # BCC's own numbers are those of its rewriting
        known = [SourceLine("", 0, str(self._path), n, line.strip()) for n, line in lines]
        start = ("", 0)
        return verifier.rejection(
            self._path, program, start, code=code, log=log, source_lines=known
        )

    def _uncompiled(self) -> BpfError:
        output = self._output()
        match = DIAGNOSTIC.search(output)
        if not match and NO_HEADERS.search(output):
            return UnavailableError(f"BCC found no kernel headers: {self._last_line()}")
        where = f"{self._path}:{match[1]}:{match[2]}: {match[3]}" if match else self._last_line()
        return CompileError(f"{where} (BCC)", output)

    def _output(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def _last_line(self) -> str:
        lines = self._output().strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


def python() -> str:
    """Return the Python that has BCC: this one, or Debian's; raise `UnavailableError`."""
    spec = importlib.util.find_spec("bcc")
    if spec is not None and spec.origin and Path(spec.origin).with_name("libbcc.py").exists():
        return sys.executable
    python, module = DEBIAN_S
    if python.exists() and module.exists():
        return str(python)
    raise UnavailableError(
        "BCC is not installed: apt install python3-bpfcc (a virtual environment finds it too; the "
        "'bcc' of PyPI is something else)"
    )


def _object(
    path: Path,
    programs: Iterable[Mapping[str, Any]],
    maps: Iterable[Mapping[str, Any]],
    chosen: Mapping[str, str],
    fds: list[int],
) -> Object:
    left = iter(fds)
    return Object(
        Parts(
            path,
            {told["name"]: _program(next(left), told, chosen[told["name"]]) for told in programs},
            {told["name"]: _map(next(left), told) for told in maps},
            release=lambda: None,  # each closes its own descriptor
        )
    )


def _program(fd: int, told: Mapping[str, Any], section: str) -> Program:
    name = told["name"]
    what = Identity(fd, name, program_type(section), section)
    return Program.from_identity(what, context_type=context_type(fd, name), load_log=told["log"])


def _map(fd: int, answer: Mapping[str, Any]) -> Map:
    """Return a table: typed by its BTF, and where it has none, as BCC describes it."""
    key, value = (
        type_of(json.loads(answer[part])) if answer[part] else None for part in ("key", "value")
    )
    described = MapTemplate("", 0, 0, 0, key=key, value=value)
    event = struct_of(answer["name"], answer["members"])
    return Map.from_fd(fd, name=answer["name"], event=event, like=described)
