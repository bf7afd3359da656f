"""Where in which binary a uprobe goes."""

from __future__ import annotations

import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import AttachError
from pytest_bpf.kinds.programs import parse_section
from pytest_bpf.objects.symbols import Binary, SymbolError

if TYPE_CHECKING:
    from pytest_bpf.objects.link.options import Options
    from pytest_bpf.objects.link.targets import Attachable


@dataclass(frozen=True)
class ProbePoint:
    """A place in a binary: its path, the offset in the file in bytes, and what to call it."""

    path: Path
    offset: int
    name: str


def probe_point(program: Attachable, target: Any, options: Options) -> ProbePoint:
    """Return where a uprobe goes; raise `AttachError`, with near names for a wrong one."""
    return _points(program, target, options, many=False)[0]


def probe_points(program: Attachable, target: Any, options: Options) -> list[ProbePoint]:
    """Return the places of all functions that match ``function``, a name or a pattern."""
    return _points(program, target, options, many=True)


def _points(program: Attachable, target: Any, options: Options, *, many: bool) -> list[ProbePoint]:
    binary, function = parse_place(program, target, 2)
    binary, function = os.fspath(options.binary or binary), options.function or function
    if not binary:
        raise AttachError(
            f"program {program.name!r} ({program.section}): its section does not say where, pass "
            'binary=, function=: program.attach(binary="libc.so.6", function="malloc")'
        )
    if not function and not options.offset:
        raise AttachError(
            f"program {program.name!r} ({program.section}): pass function=, or offset= in the "
            f"file; {binary} alone is no place for a probe"
        )
    path = find_binary(program, binary)
    if not function:
        return [ProbePoint(path, options.offset, f"{binary}:{options.offset:#x}")]
    name, add = split_offset(program, function)
    add += options.offset
    try:
        elf = Binary.read(path)
        names = elf.matches(name) if many else [name]
        points = [(each, elf.offset(each, add)) for each in names]
    except SymbolError as error:
        raise AttachError(f"program {program.name!r} ({program.section}): {error}") from None
    suffix = f"+{add:#x}" if add else ""
    return [ProbePoint(path, offset, f"{binary}:{each}{suffix}") for each, offset in points]


def parse_place(program: Attachable, target: Any, parts: int) -> list[str]:
    """Return the ``parts`` of ``"path:function"`` in a target or else the section, "" without."""
    parsed = parse_section(program.section)
    text = str(target) if target is not None else parsed.target if parsed else ""
    fields = text.rsplit(":", parts - 1) if text else []
    return [*fields, *[""] * (parts - len(fields))]


def split_offset(program: Attachable, text: str) -> tuple[str, int]:
    """Return the name and the offset in ``"main+0x10"``; raise `AttachError` for no number."""
    name, plus, offset = text.partition("+")
    try:
        return name, int(offset, 0) if plus else 0
    except ValueError:
        raise AttachError(
            f"program {program.name!r} ({program.section}): {offset!r} in {text!r} is no number of "
            "bytes"
        ) from None


def find_binary(program: Attachable, name: str) -> Path:
    """Return the path of a binary: a path, a library as the loader finds it, a command.

    Raises `AttachError`.
    """
    if "/" in name:
        path = Path(name)
    elif ".so" in name:
        path = next(
            (folder / name for folder in _folders() if (folder / name).exists()), Path(name)
        )
    else:
        path = Path(shutil.which(name) or name)
    if not path.is_file():
        raise AttachError(
            f"program {program.name!r} ({program.section}): there is no binary {name}"
            + ("" if "/" in name else " among the libraries and commands; pass its path")
            + " (ENOENT: No such file or directory)"
        )
    return path.absolute()


def _folders() -> list[Path]:
    loaded = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = {os.path.dirname(path) for path in loaded if ".so" in path and path[0] == "/"}  # noqa: PTH120 (only strings)
    given = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    usual = [
        f"/lib/{multiarch}",
        f"/usr/lib/{multiarch}",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ]
    return [Path(folder) for folder in (*filter(None, given), *usual, *sorted(mapped))]
