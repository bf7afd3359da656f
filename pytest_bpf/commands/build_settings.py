"""How a repository's BPF sources are compiled, found out by trying."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.compile import BuildCommand, CompileOptions
from pytest_bpf.errors import BpfError, CompileError
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.commands.load_arguments import LoadArguments
    from pytest_bpf.objects.loading.open_object import OpenObject

DATABASES = ("compile_commands.json", "build/compile_commands.json", "out/compile_commands.json")
OBJECTS = (
    *("{dir}/{name}.bpf.o", "{dir}/{name}.o", "build/{name}.bpf.o", "build/{name}.o"),
    *(".output/{name}.bpf.o", "out/{name}.bpf.o", "{name}.bpf.o", "{name}.o"),
)
"""Where projects keep the database of their compile commands, and their objects."""

MISSING = re.compile(r"'([^'\n]+)' file not found")
MOST_FOLDERS = 12
"""Include folders that are looked for before it is given up."""


@dataclass(frozen=True)
class BuildSettings:
    """What the configuration has to say so that the sources compile; paths from the root."""

    include_dirs: tuple[str, ...] = ()
    compile_commands: str = ""
    build_object: str = ""

    def compile_options(self, root: Path) -> CompileOptions:
        """Return the same for a `Loader`."""
        return CompileOptions(
            include_dirs=tuple(root / folder for folder in self.include_dirs),
            database=root / self.compile_commands if self.compile_commands else None,
            build=(
                BuildCommand(f"make {self.build_object}", self.build_object, root)
                if self.build_object
                else None
            ),
        )

    def ini(self, root: Path | None = None) -> dict[str, str]:
        """Return the lines of pytest's configuration; with ``root``, its paths are absolute."""

        def path(text: str) -> str:
            return str(root / text) if root else text

        lines = {}
        if self.include_dirs:
            lines["bpf_include_dirs"] = " ".join(path(each) for each in self.include_dirs)
        if self.compile_commands:
            lines["bpf_compile_commands"] = path(self.compile_commands)
        if self.build_object:
            make = f"make -C {shlex.quote(str(root))}" if root else "make"
            lines["bpf_build_command"] = f"{make} {self.build_object}"
            lines["bpf_build_object"] = path(self.build_object)
        return lines


def open_source(
    source: Path, root: Path, settings: BuildSettings
) -> tuple[OpenObject, BuildSettings]:
    """Return the open object of a source, and the settings that it and those before it need.

    Tried in this order: the settings so far; the folders of the repository that have the headers
    that are missing; the flags of a ``compile_commands.json``; a target of the ``Makefile``.
    Raises what the first of them raised when none will do.
    """
    first: BpfError | None = None
    for way in (_with_headers, _with_database, _with_make):
        try:
            return way(source, root, settings)
        except BpfError as error:
            first = first or error
    assert first is not None
    raise first


def load_source(
    source: Path, root: Path, settings: BuildSettings, arguments: LoadArguments
) -> None:
    """Load the object of a source, and unload it. Raises what `Loader.load` does."""
    with _loader(root, settings) as loader:
        loader.load(
            source,
            types=arguments.types,
            max_entries=arguments.max_entries,
            value_size=arguments.value_size,
            skip=arguments.skip,
        )


def _open(source: Path, root: Path, settings: BuildSettings) -> OpenObject:
    return _loader(root, settings).open(source)


def _loader(root: Path, settings: BuildSettings) -> Loader:
    options = settings.compile_options(root)
    return Loader(root, compile_options=lambda _: options, on_compile=_ignore)


def _ignore(_: object) -> None:
    """Show no warning of the compiler: the tests will."""


def _with_headers(
    source: Path, root: Path, settings: BuildSettings
) -> tuple[OpenObject, BuildSettings]:
    for _ in range(MOST_FOLDERS):
        try:
            return _open(source, root, settings), settings
        except BpfError as error:
            text = f"{error}\n{getattr(error, 'output', '')}"
            missing = MISSING.search(text)
            folder = _folder_with(missing[1], root) if missing else None
            if folder is None or folder in settings.include_dirs:
                raise
            settings = replace(settings, include_dirs=(*settings.include_dirs, folder))
    raise CompileError(f"{source}: more than {MOST_FOLDERS} include folders are missing")


def _folder_with(header: str, root: Path) -> str | None:
    """Return the folder, from the root, below which the header is; the least deep of several."""
    name = Path(header).name
    places = []
    for place, folders, names in os.walk(root):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        if name in names:
            places.append(Path(place, name))
    tails = [path for path in places if path.as_posix().endswith(f"/{header}")]
    folders = [path.as_posix()[: -len(header) - 1] for path in tails]
    least = min(folders, key=lambda folder: (folder.count("/"), folder), default=None)
    return None if least is None else os.path.relpath(least, root)


def _with_database(
    source: Path, root: Path, settings: BuildSettings
) -> tuple[OpenObject, BuildSettings]:
    database = next((name for name in DATABASES if (root / name).is_file()), None)
    if database is None:
        raise CompileError(f"{root} has no compile_commands.json")
    settings = replace(settings, compile_commands=database)
    return _open(source, root, settings), settings


def _with_make(
    source: Path, root: Path, settings: BuildSettings
) -> tuple[OpenObject, BuildSettings]:
    for pattern in _targets(source, root):
        changed = replace(settings, build_object=pattern)
        return _open(source, root, changed), changed
    raise CompileError(f"the Makefile of {root} has no target that makes the object of {source}")


def _targets(source: Path, root: Path) -> Iterator[str]:
    """Yield the objects, as patterns with ``{name}``, that ``make`` knows how to make."""
    if not any((root / name).is_file() for name in ("Makefile", "makefile", "GNUmakefile")):
        return
    folder = os.path.relpath(source.parent, root)
    name = source.name.removesuffix(".c").removesuffix(".bpf")
    for place in OBJECTS:
        pattern = os.path.normpath(place.replace("{dir}", folder))
        target = pattern.format(name=name)
        command = ("make", "--dry-run", "--silent", "--no-builtin-rules", target)
        known = subprocess.run(command, cwd=root, capture_output=True, check=False)
        if known.returncode == 0 and source.name.encode() in known.stdout:
            yield pattern
