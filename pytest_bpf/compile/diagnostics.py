"""What a compiler printed, as one sentence with the place of the first error."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, CompileError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

_ERROR = re.compile(
    r"^(?:(?P<file>[^\n]+?):(?P<line>\d+):(?:\d+:)? )?(?:\S+: )?(?:fatal )?error: (?P<text>.+)$",
    re.MULTILINE,
)

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


def failure(output: str, code: int, *, compiler: str, source: str) -> BpfError:
    """Return the exception for a compiler that ended with ``code`` (negative: a signal).

    ``output`` is everything it printed, with paths as the user knows them.
    """
    if crash := _crash(code):
        return CompileError(f"{compiler} {crash} while it compiled {source}", output)
    errors = [e for e in _ERROR.finditer(output) if not e["text"].startswith("too many errors")]
    if not errors:
        last = output.strip().rpartition("\n")[2] or "it printed nothing"
        return CompileError(f"{source}: {compiler} ended with code {code} ({last})", output)
    first = errors[0]
    place = f"{first['file']}:{first['line']}" if first["file"] else source
    message = f"{place}: {first['text']}"
    if len(errors) > 1:
        message += f" (and {len(errors) - 1} more error{'s' * (len(errors) > 2)})"
    if re.match("(redefinition|typedef redefinition)", first["text"]) and "vmlinux.h:" in output:
        message += "; vmlinux.h has that name already, choose another"
    wanted = missing_header(first.group())
    for package, headers in PACKAGES.items():
        if wanted.startswith(("bpf/", "linux/", "asm/")) and wanted.endswith(headers):
            return UnavailableError(f"{message}; install {package} (Debian, Ubuntu), which has it")
    return CompileError(message, output)


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
