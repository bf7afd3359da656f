"""Several objects and static libraries become one object, by libbpf's linker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.cache import digest, mark_used
from pytest_bpf.errors import CompileError
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_bpf.cache import Cache

ARCHIVE = b"!<arch>\n"
"""What a static library (``ar``) starts with."""

MEMBER_HEADER = 60


def link(files: Sequence[Path], name: str, cache: Cache) -> Path:
    """Link BPF objects and static libraries of them (``.a``), and return the object.

    The object is in the cache, by the contents of ``files`` and their order. Raises `CompileError`
    with libbpf's reason when a file cannot be read, or they do not fit together.
    """
    contents = [(file, _read(file)) for file in files]
    key = digest("link", libbpf.version(), *(content for _, content in contents))
    parts = ("objects", f"{name}-{key[:16]}.bpf.o")
    path = cache.folder.joinpath(*parts)
    if path.exists():
        mark_used(path)
        return path
    with cache.workspace() as folder:
        inputs: list[Path] = []
        for number, (file, content) in enumerate(contents):
            for member, part in _members(file, content):
                inputs.append(folder / f"{number}-{len(inputs)}-{member}.o")
                inputs[-1].write_bytes(part)
        return cache.adopt(_link(inputs, folder / "linked", files), *parts)


def _link(inputs: Sequence[Path], output: Path, files: Sequence[Path]) -> Path:
    with libbpf.messages() as messages:
        try:
            linker = libbpf.call("bpf_linker__new", str(output).encode(), None)
            try:
                for part in inputs:
                    libbpf.call("bpf_linker__add_file", linker, str(part).encode(), None)
                libbpf.call("bpf_linker__finalize", linker)
            finally:
                libbpf.function("bpf_linker__free")(linker)
        except OSError as error:
            names = ", ".join(file.name for file in files)
            reason = messages[0] if messages else error.strerror
            raise CompileError(f"{names} cannot be linked: {reason}", "\n".join(messages)) from None
    return output


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CompileError(f"{file} cannot be linked: {error.strerror}") from None


def _members(file: Path, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the objects of a static library with their names; an object itself is the only one."""
    if not content.startswith(ARCHIVE):
        yield file.name.partition(".")[0], content
        return
    at = len(ARCHIVE)
    while at + MEMBER_HEADER <= len(content):
        header = content[at : at + MEMBER_HEADER]
        size = int(header[48:58]) if header[48:58].strip().isdigit() else 0
        part = content[at + MEMBER_HEADER : at + MEMBER_HEADER + size]
        if part.startswith(b"\x7fELF"):
            yield header[:16].decode(errors="replace").strip().strip("/").partition(".")[0], part
        at += MEMBER_HEADER + size + size % 2
