"""``pytest-bpf new``: a program of some kind and its test, to start from."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class Template:
    """What ``new`` writes for a kind: the templates' files, by the name that the file gets."""

    does: str
    files: tuple[str, ...] = ("NAME.bpf.c", "test_NAME.py")


TEMPLATES = {
    "xdp": Template("drops the packets to a port, before the network stack sees them"),
    "tc": Template("marks the packets that leave an interface"),
    "cgroup": Template("counts what the sockets of a cgroup send"),
    "tracepoint": Template("counts the system calls of a process"),
    "uprobe": Template("counts the calls of a function in a library"),
    "c": Template("an XDP program whose tests are written in C", ("NAME.bpf.c", "NAME.test.bpf.c")),
}


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    result = argparse.ArgumentParser(
        "pytest-bpf new",
        description="Write a BPF program and its test, to start from.",
        epilog="; ".join(f"{kind}: {template.does}" for kind, template in TEMPLATES.items()),
    )
    result.add_argument("kind", choices=tuple(TEMPLATES))
    result.add_argument("name", nargs="?", help="of the program (default: the kind)")
    result.add_argument("--folder", default=".", type=Path, help="where they are written")
    return result


def main(arguments: Sequence[str]) -> int:
    """Write the files of a kind; return the exit status."""
    options = parser().parse_args(arguments)
    name = options.name or {"c": "drop"}.get(options.kind, f"my_{options.kind}")
    if not NAME.fullmatch(name):
        parser().error(f"a program's name has small letters, digits and _, and {name!r} has others")
    templates = TEMPLATES[options.kind].files
    paths = [options.folder / template.replace("NAME", name) for template in templates]
    if there := [str(path) for path in paths if path.exists()]:
        print(f"pytest-bpf new: {', '.join(there)} is there already", file=sys.stderr)
        return 1
    options.folder.mkdir(parents=True, exist_ok=True)
    for path, template in zip(paths, templates, strict=True):
        path.write_text(_template(options.kind, template).replace("NAME", name), encoding="utf-8")
        print(f"wrote {path}")
    print(f"run it: sudo -E $(command -v pytest) {paths[-1]}")
    return 0


def _template(kind: str, name: str) -> str:
    folder = files("pytest_bpf.commands").joinpath("templates").joinpath(kind)
    return folder.joinpath(f"{name}.txt").read_text("utf-8")
