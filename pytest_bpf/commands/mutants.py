"""Small mistakes in a BPF source, made where clang says its tokens stand."""

from __future__ import annotations

import difflib
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pytest_bpf.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_bpf.compile.compilers import Compiler

TOKEN = re.compile(
    r"^(?P<kind>\w+) '(?P<text>(?:.|\n)*?)'\t.*?\tLoc=<.*?:(?P<line>\d+):(?P<column>\d+)>$",
    re.MULTILINE,
)
SILENT = frozenset({"comment", "unknown", "eof"})


class Token(NamedTuple):
    """A token of a source: clang's name of its kind, its text, and where it stands in the file."""

    kind: str
    text: str
    at: int
    line: int


@dataclass(frozen=True)
class Mutant:
    """A mistake: ``old`` at the byte ``at`` of a source becomes ``new``; ``what`` says which."""

    what: str
    line: int
    at: int
    old: str
    new: str

    def apply(self, text: str) -> str:
        """Return the source with the mistake in it."""
        raw = text.encode()
        end = self.at + len(self.old.encode())
        return (raw[: self.at] + self.new.encode() + raw[end:]).decode()

    def diff(self, text: str, name: str) -> str:
        """Return the mistake as a unified diff."""
        before, after = (part.splitlines(keepends=True) for part in (text, self.apply(text)))
        return "".join(difflib.unified_diff(before, after, name, name, n=1))


def tokens(source: Path, compiler: Compiler) -> list[Token]:
    """Return the tokens of a source, comments, blanks and directives left out.

    Raises `CompileError` when the compiler does not tell them.
    """
    command = (*compiler.command, "-fsyntax-only", "-Xclang", "-dump-raw-tokens", str(source))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    raw = source.read_bytes()
    starts = [0, *(match.end() for match in re.finditer(rb"\n", raw))]
    result: list[Token] = []
    directive = 0
    for match in TOKEN.finditer(done.stderr):
        kind, text, line = match["kind"], match["text"], int(match["line"])
        if kind == "hash":
            directive = _end_of_directive(raw, starts[line - 1], line)
        if kind not in SILENT and line > directive:
            result.append(Token(kind, text, starts[line - 1] + int(match["column"]) - 1, line))
    if not result:
        raise CompileError(f"{source}: {compiler} does not tell its tokens", done.stderr)
    return result


def _end_of_directive(raw: bytes, at: int, line: int) -> int:
    """Return the last line of a directive that may go on behind a backslash."""
    for text in raw[at:].split(b"\n"):
        if not text.rstrip().endswith(b"\\"):
            return line
        line += 1
    return line


SWAPS: dict[str, tuple[str, str]] = {
    "<": ("<=", "bound off by one"),
    "<=": ("<", "bound off by one"),
    ">": (">=", "bound off by one"),
    ">=": (">", "bound off by one"),
    "==": ("!=", "comparison turned"),
    "!=": ("==", "comparison turned"),
    "&&": ("||", "condition joined otherwise"),
    "||": ("&&", "condition joined otherwise"),
    "+": ("-", "arithmetic turned"),
    "-": ("+", "arithmetic turned"),
    "+=": ("-=", "arithmetic turned"),
    "-=": ("+=", "arithmetic turned"),
    "++": ("--", "arithmetic turned"),
    "<<": (">>", "shift turned"),
    ">>": ("<<", "shift turned"),
    "|": ("&", "bits joined otherwise"),
    "|=": ("&=", "bits joined otherwise"),
    "BPF_NOEXIST": ("BPF_ANY", "update flag changed"),
    "BPF_EXIST": ("BPF_ANY", "update flag changed"),
    "BPF_ANY": ("BPF_NOEXIST", "update flag changed"),
    "BPF_MAP_TYPE_HASH": ("BPF_MAP_TYPE_LRU_HASH", "map type swapped"),
    "BPF_MAP_TYPE_LRU_HASH": ("BPF_MAP_TYPE_HASH", "map type swapped"),
    "BPF_MAP_TYPE_PERCPU_ARRAY": ("BPF_MAP_TYPE_ARRAY", "map type swapped"),
    "BPF_MAP_TYPE_PERCPU_HASH": ("BPF_MAP_TYPE_HASH", "map type swapped"),
    "XDP_DROP": ("XDP_PASS", "verdict changed"),
    "XDP_PASS": ("XDP_DROP", "verdict changed"),
    "XDP_TX": ("XDP_PASS", "verdict changed"),
    "TC_ACT_SHOT": ("TC_ACT_OK", "verdict changed"),
    "TC_ACT_OK": ("TC_ACT_SHOT", "verdict changed"),
}
"""What a token becomes, and what kind of mistake that is."""

BYTE_ORDER = frozenset(f"bpf_{way}{size}" for way in ("hton", "ntoh") for size in "sl") | frozenset(
    f"__bpf_{way}" for way in ("htons", "ntohs", "htonl", "ntohl")
)
ATOMIC_ADD = "__sync_fetch_and_add"


def mutants(found: Sequence[Token], raw: bytes) -> Iterator[Mutant]:
    """Yield the mistakes that can be made in a source, in the order of its lines."""
    inside = _bodies(found)
    for index, token in enumerate(found):
        if token.text in SWAPS and (index in inside or token.text.startswith("BPF_MAP")):
            if token.text in "+-|" and not _is_binary(found, index):
                continue
            new, what = SWAPS[token.text]
            yield Mutant(what, token.line, token.at, token.text, new)
        if index in inside:
            for make in (_number, _byte_order, _condition, _early_return):
                mutant = make(found, index)
                if mutant is not None:
                    yield mutant
            if token.text == ATOMIC_ADD and (plain := _plain_addition(found, index, raw)):
                yield plain


def _bodies(found: Sequence[Token]) -> set[int]:
    """Return the indexes of the tokens that stand in bodies of functions."""
    inside: set[int] = set()
    depth, body = 0, False
    for index, token in enumerate(found):
        if token.kind == "l_brace":
            if not depth:
                body = found[index - 1].kind == "r_paren"
            depth += 1
        if depth and body:
            inside.add(index)
        if token.kind == "r_brace":
            depth -= 1
    return inside


def _is_binary(found: Sequence[Token], index: int) -> bool:
    """Tell whether an operator stands between two values."""
    before = found[index - 1]
    return before.kind in {"raw_identifier", "numeric_constant", "r_paren", "r_square"} and (
        before.text not in {"return", "case"}
    )


def _number(found: Sequence[Token], index: int) -> Mutant | None:
    token = found[index]
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)", token.text)
    if token.kind != "numeric_constant" or match is None:
        return None
    base = 16 if match[1][:2] in {"0x", "0X"} else 8 if match[1][0] == "0" else 10
    try:
        number = int(match[1], base) + 1
    except ValueError:
        return None
    new = f"{number:#x}" if base == 16 else str(number)
    return Mutant("constant changed", token.line, token.at, token.text, new + match[2])


def _byte_order(found: Sequence[Token], index: int) -> Mutant | None:
    token = found[index]
    if token.text not in BYTE_ORDER:
        return None
    return Mutant("byte order forgotten", token.line, token.at, token.text, "")


def _plain_addition(found: Sequence[Token], index: int, raw: bytes) -> Mutant | None:
    """Return an atomic addition made a plain one."""
    start, depth, comma = found[index], 0, None
    for token in found[index + 1 :]:
        depth += (token.kind == "l_paren") - (token.kind == "r_paren")
        if token.kind == "comma" and depth == 1 and comma is None:
            comma = token.at
        if not depth:
            break
    if comma is None:
        return None
    first = found[index + 1].at + 1
    place, by = raw[first:comma].decode(), raw[comma + 1 : token.at].decode().strip()
    old = raw[start.at : token.at + 1].decode()
    return Mutant("atomic made plain", start.line, start.at, old, f"(*({place}) += ({by}))")


def _condition(found: Sequence[Token], index: int) -> Mutant | None:
    """Return a check removed: its condition never holds."""
    token = found[index]
    if token.text != "if" or found[index + 1].kind != "l_paren":
        return None
    paren = found[index + 1]
    return Mutant("check removed", paren.line, paren.at, "(", "(0 && ")


def _early_return(found: Sequence[Token], index: int) -> Mutant | None:
    """Return a return dropped that ends no function: one that follows a condition."""
    token = found[index]
    if token.text not in {"return", "continue", "break"} or found[index - 1].kind != "r_paren":
        return None
    return Mutant("early return dropped", token.line, token.at, token.text, f"if (0) {token.text}")
