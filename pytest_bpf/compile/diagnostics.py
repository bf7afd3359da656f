"""What a compiler printed, as one sentence with the place of the first error."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, CompileError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

_ERROR = re.compile(
    r"^(?:(?P<file>[^\n]+?):(?P<line>\d+):(?:\d+:)? )?(?:\S+: )?(?:fatal )?error: (?P<text>.+)$",
    re.MULTILINE,
)

_WARNING = re.compile(
    r"^(?:(?P<file>[^\n:]+):(?P<line>\d+):(?:\d+:)? |[^\s:]+: )?warning: (?P<text>.+)$",
    re.MULTILINE,
)

_FOLDER = re.compile(r"make(\[\d+\])?: (Entering|Leaving) directory ")
"""What make prints around its output when another make has started it."""

SHOWN_ERRORS = 4
"""How many errors the message of a failed compilation has."""

PACKAGES = {
    "libbpf-dev": (
        "bpf_helpers.h",
        "bpf_core_read.h",
        "bpf_tracing.h",
        "bpf_endian.h",
        "usdt.bpf.h",
    ),
    "linux-libc-dev": ("linux/bpf.h", "linux/types.h", "asm/types.h"),
}
"""The Debian and Ubuntu packages of the headers that every BPF source needs."""


def missing_header(output: str) -> str:
    """Return the header that was not found, as the source wrote it, or ``""``."""
    match = re.search(r"error: '([^'\n]+)' file not found", output)
    return match[1] if match else ""


@dataclass(frozen=True)
class Diagnostic:
    """A complaint of the compiler: its place (line 0: none) and its text."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else self.text


def warnings_in(output: str) -> list[Diagnostic]:
    """Return the compiler's warnings, each once.

    >>> warnings_in("a.bpf.c:3:7: warning: variable 'x' is uninitialized [-Wuninitialized]")[0].line
    3
    """
    matches = _WARNING.finditer(output)
    return list(
        dict.fromkeys(Diagnostic(m["file"] or "", int(m["line"] or 0), m["text"]) for m in matches)
    )


def has_errors(output: str) -> bool:
    """Say whether a compiler named an error with its place."""
    return any(error["line"] for error in _ERROR.finditer(output))


def failure(output: str, code: int, *, compiler: str, source: str, content: str = "") -> BpfError:
    """Return the exception for a compiler that ended with ``code`` (negative: a signal).

    ``output`` is everything it printed, with paths as the user knows them, ``content`` the source.
    """
    if crash := _crash(code):
        return CompileError(f"{compiler} {crash} while it compiled {source}", output)
    errors = [e for e in _ERROR.finditer(output) if not e["text"].startswith("too many errors")]
    if not errors:
        lines = [line for line in output.splitlines() if line.strip() and not _FOLDER.match(line)]
        last = lines[-1].strip() if lines else "it printed nothing"
        return CompileError(f"{source}: {compiler} ended with code {code} ({last})", output)
    from pytest_bpf.compile.hints import hint  # noqa: PLC0415 - only of a failure

    first = errors[0]
    place = f"{first['file']}:{first['line']}" if first["file"] else source
    message = f"{place}: {first['text']}"
    if len(errors) > 1:
        message += f" (and {len(errors) - 1} more error{'s' * (len(errors) > 2)})"
    line = int(first["line"] or 0) if first["file"] == source else 0
    message += hint(first["text"], output, content, line, str(Path(source).parent))
    header = missing_header(first.group())
    for package, headers in PACKAGES.items():
        if header.startswith(("bpf/", "linux/", "asm/")) and header.endswith(headers):
            return UnavailableError(f"{message}; install {package} (Debian, Ubuntu), which has it")
    others = [str(Diagnostic(e["file"] or "", int(e["line"] or 0), e["text"])) for e in errors[1:]]
    shown = [f"    {line}" for line in others[: SHOWN_ERRORS - 1]]
    if len(others) >= SHOWN_ERRORS:
        shown.append("    ... (the error's .output has all; pytest -vv shows them)")
    return CompileError("\n".join([message, *shown]), output)


def _crash(code: int) -> str:
    """Say how a compiler died; clang reports a signal it caught itself as 128 + its number."""
    number = -code if code < 0 else code - 128
    if number <= 0:
        return ""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return ""
    memory = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"was killed by {name}{memory}" if code < 0 else f"crashed with {name}"


def relative_to_here() -> Callable[[str], str]:
    """Return a function that writes paths below the current folder relative to it, in any text."""
    here = re.escape(str(Path.cwd()).rstrip("/") + "/")
    inside = re.compile(rf"(?<![\w./-]){here}")
    return lambda text: inside.sub("", text)
