"""``pytest-bpf compile-commands``: how the sources are compiled, for editors."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.commands.build_settings import BuildSettings, open_source
from pytest_bpf.commands.sources import find_sources
from pytest_bpf.compile import compile_command, find_compiler
from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf compile-commands",
        description="Write how the BPF sources are compiled, for clangd and other tools.",
    )
    result.add_argument("folder", nargs="?", default=".", type=Path, help="the repository")
    result.add_argument("--output", "-o", type=Path, help="the file (compile_commands.json there)")
    return result


def main(arguments: Sequence[str]) -> int:
    """Write ``compile_commands.json`` for the sources of a folder; return the exit status."""
    options = parser().parse_args(arguments)
    root = options.folder.absolute()
    output = options.output or root / "compile_commands.json"
    sources = find_sources(root)
    if not sources:
        print(f"pytest-bpf compile-commands: {root} has no BPF sources", file=sys.stderr)
        return 2
    if output.exists() and not _is_ours(output):
        print(
            f"pytest-bpf compile-commands: {output} is there already, and not of this command; "
            "write another with --output FILE",
            file=sys.stderr,
        )
        return 1
    try:
        entries = _entries(root, sources)
    except BpfError as error:
        print(f"pytest-bpf compile-commands: {error}", file=sys.stderr)
        return 1
    output.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {output}: {len(entries)} sources")
    return 0


MARK = "-DPYTEST_BPF_EDITOR"
"""A macro in every command that is written here: so the file is known again."""


def _is_ours(path: Path) -> bool:
    return MARK in path.read_text(encoding="utf-8", errors="replace")


def _entries(root: Path, sources: Sequence[Path]) -> list[dict[str, object]]:
    compiler = find_compiler()
    settings = BuildSettings()
    entries: list[dict[str, object]] = []
    for source in sources:
        try:
            _, settings = open_source(source, root, settings)
        except BpfError as error:
            print(f"{source.relative_to(root)}: {error}".splitlines()[0], file=sys.stderr)
        folders = [root / folder for folder in settings.include_dirs]
        command = compile_command(source, compiler, include_dirs=folders)
        words = [*command, MARK, "-c", str(source)]
        entries.append({"directory": str(root), "file": str(source), "arguments": words})
    return entries
