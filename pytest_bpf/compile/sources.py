"""The source of a program: a file of the user's, or a text that becomes a file in the cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import Cache, digest, mark_used
from pytest_bpf.compile.diagnostics import relative_to_here
from pytest_bpf.errors import CompileError, near_matches

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class Source:
    """A C source: its absolute ``path``, its ``content``, and what messages and objects call it."""

    path: Path
    content: bytes
    display_name: str
    label: str


def read_source(source: os.PathLike[str] | str, name: str | None, cache: Cache) -> Source:
    """Return the file ``source``, or the text ``source`` (a `str` with a newline) as a file.

    Raises `CompileError` when it is missing, a folder, unreadable, empty or not text.
    """
    if isinstance(source, str) and "\n" in source:
        return _from_text(source, name or "inline", cache)
    path = Path(source).absolute()
    display_name = relative_to_here()(str(path))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CompileError(f"{display_name} does not exist{_neighbours(path)}") from None
    except IsADirectoryError:
        raise CompileError(f"{display_name} is a folder; give the C source in it") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CompileError(f"{display_name} cannot be read: {why}") from None
    _check(content, display_name)
    label = name or path.name.removesuffix(".c").removesuffix(".bpf")
    return Source(path, content, display_name, _plain(label))


def _from_text(text: str, name: str, cache: Cache) -> Source:
    label = _plain(name)
    display_name = f"{label}.bpf.c"
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise CompileError(
            f"{display_name} (source text) is not valid Unicode: {error.reason}"
        ) from None
    _check(content, f"{display_name} (source text)")
    parts = ("sources", f"{label}-{digest(content)[:16]}.bpf.c")
    path = cache.folder.joinpath(*parts)
    if cache.read(*parts) != content:
        cache.write(content, *parts)
    mark_used(path)
    return Source(path, content, display_name, label)


def _check(content: bytes, display_name: str) -> None:
    if not content.strip():
        raise CompileError(
            f"{display_name} is empty; a program needs at least a function in a SEC()"
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        kind = "an ELF object" if content.startswith(b"\x7fELF") else "not UTF-8 text"
        where = f"byte {content[error.start]:#04x} at offset {error.start}"
        raise CompileError(f"{display_name} is {kind}, not a C source ({where})") from None


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f": there is no folder {relative_to_here()(str(folder))}"
    sources = [p.name for p in folder.iterdir() if p.suffix in {".c", ".o"}]
    return near_matches(path.name, sources) if sources else ": the folder has no .c file"


def _plain(name: str) -> str:
    """Return ``name`` as it may stand in a file name: letters, digits, ``_``, ``-``, inner dots."""
    return re.sub(r"[^\w.-]+", "_", name)[:64].strip(".") or "source"
