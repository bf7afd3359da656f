"""Run a command in a terminal of its own and draw what it really printed.

    python docs/picture.py docs/demo.svg -- python -m pytest --pyargs bpf_examples.lru --bpf-costs

Needs rich (``pip install rich``). Exits with the command's own code.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 112
ROWS = 50

SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own template names fonts on the Web; a picture should fetch nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--shown", help="the command as the picture shows it")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    code, printed = run(given.command)
    shown = given.shown or shlex.join(given.command)
    given.picture.write_text(draw(shown, printed))
    sys.stdout.write(printed)
    return code


def run(command: list[str]) -> tuple[int, str]:
    """Return the exit code and the output, escape sequences included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", ROWS, WIDTH, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # EIO: nobody holds the terminal any more
            while part := os.read(ours, 1 << 16):
                printed += part
    os.close(ours)
    return process.returncode, printed.decode(errors="replace").replace("\r\n", "\n").strip()


def draw(command: str, printed: str) -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    for line in printed.split("\n"):
        overwritten = line.rpartition("\r")[2]
        console.print(Text.from_ansi(overwritten), no_wrap=True, overflow="ignore", crop=False)
    return console.export_svg(title="pytest-bpf", theme=MONOKAI, code_format=SVG, unique_id="bpf")


if __name__ == "__main__":
    sys.exit(main())
