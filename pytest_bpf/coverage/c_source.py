"""C as far as coverage needs it: statements, where each one goes on, and what is not to count.

No compiler is asked: text that does not parse (macros with braces) has no statements.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NO_COVER = re.compile(r"(?:/\*|//)\s*(?:pragma:\s*)?no cover\b", re.IGNORECASE)
"""The comment that takes a statement or a function out of what is counted."""

_TOKEN = re.compile(
    r"""(?P<skip>/\*.*?\*/|//[^\n]*|^[ \t]*\#(?:[^\n\\]|\\.)*|\s+|\\\n)"""
    r"""|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\w+|&&|\|\||.""",
    re.DOTALL | re.MULTILINE,
)
LOOPS = ("for", "while", "do")


class Token(NamedTuple):
    """A word or a sign, and where it stands."""

    text: str
    line: int
    column: int


@dataclass
class Statement:
    """A statement: its first and last line, and the statements in it.

    ``word`` is ``if``, ``for``, ``case`` and so on, ``{`` of a block, and else the first word.
    ``condition`` are the tokens between its parentheses. ``parts`` are those of a block, the body
    and what follows ``else``, or what follows a label; ``parent`` is what it stands in.
    """

    word: str
    line: int
    last: int = 0
    condition: Sequence[Token] = ()
    parts: list[Statement] = field(default_factory=list)
    parent: Statement | None = None

    def walk(self) -> Iterator[Statement]:
        """Yield it and all that is in it."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def entry(self) -> int | None:
        """Return the line where it starts to do something; None for an empty block."""
        if self.word == "{":
            return next((line for part in self.parts if (line := part.entry()) is not None), None)
        if self.word in {"case", "default", ":"}:
            return self.parts[0].entry() if self.parts else None
        if self.word == "do":
            return self.parts[0].entry() or self.line
        return self.line

    def successor(self) -> int | None:
        """Return the line that runs after it; None where the function ends."""
        parent = self.parent
        if parent is None:
            return None
        if parent.word == "{":
            for part in parent.parts[parent.parts.index(self) + 1 :]:
                if (line := part.entry()) is not None:
                    return line
        elif parent.word in {"for", "while"}:
            return parent.line
        elif parent.word == "do":
            return parent.condition[0].line if parent.condition else parent.line
        return parent.successor()


@dataclass(frozen=True)
class CSource:
    """The functions of a source, each as the block of its body, and the text by lines."""

    lines: tuple[str, ...]
    functions: tuple[Statement, ...]
    heads: tuple[int, ...]

    def statements(self) -> Iterator[Statement]:
        """Yield the statements that do something: blocks and labels are what they hold."""
        for function in self.functions:
            for statement in function.walk():
                if statement.word not in {"{", "case", "default", ":", ";"}:
                    yield statement

    def excluded(self, patterns: Sequence[re.Pattern[str]]) -> set[int]:
        """Return the lines of what begins on a line that a pattern is found in."""
        marked = {
            number
            for number, text in enumerate(self.lines, 1)
            if any(pattern.search(text) for pattern in patterns)
        }
        lines = set(marked)
        for head, function in zip(self.heads, self.functions, strict=True):
            if any(line in marked for line in range(head, function.line + 1)):
                lines.update(range(head, function.last + 1))
                continue
            for statement in function.walk():
                if statement.line in marked and statement is not function:
                    own = statement.parts[0] if statement.word == "if" else statement
                    lines.update(range(statement.line, own.last + 1))
        return lines


def parse(text: str) -> CSource:
    """Return the functions of a source; those that do not parse are left out."""
    tokens = list(_tokens(text))
    functions, heads = [], []
    at = depth = start = 0
    while at < len(tokens):
        word = tokens[at].text
        if word == "{" and not depth and at and tokens[at - 1].text == ")":
            parser = _Parser(tokens, at)
            try:
                functions.append(parser.statement())
            except IndexError:
                break
            heads.append(tokens[start].line)
            at = start = parser.at
            continue
        depth += (word in "({[") - (word in ")}]")
        at += 1
        if not depth and word in {";", "}"}:
            start = at
    return CSource(tuple(text.splitlines()), tuple(functions), tuple(heads))


def _tokens(text: str) -> Iterator[Token]:
    line, line_at = 1, 0
    for match in _TOKEN.finditer(text):
        word = match.group()
        if match["skip"] is None:
            yield Token(word, line, match.start() - line_at + 1)
        if newlines := word.count("\n"):
            line += newlines
            line_at = match.start() + word.rindex("\n") + 1


class _Parser:
    """Parses one function's body; an `IndexError` is the end of the text."""

    def __init__(self, tokens: Sequence[Token], at: int) -> None:
        self._tokens = tokens
        self.at = at

    def statement(self) -> Statement:
        """Parse one statement and what is in it."""
        first = self._tokens[self.at]
        parsed = Statement(first.text, first.line)
        if first.text == "{":
            self.at += 1
            while self._tokens[self.at].text != "}":
                self._part(parsed)
            self.at += 1
        elif first.text in {"if", "for", "while", "switch"}:
            self.at += 1
            while self._tokens[self.at].text != "(":
                self.at += 1
            parsed.condition = self._parentheses()
            self._part(parsed)
            if first.text == "if" and self._word() == "else":
                self.at += 1
                self._part(parsed)
        elif first.text == "do":
            self.at += 1
            self._part(parsed)
            self.at += 1
            parsed.condition = self._parentheses()
            self._end()
        elif first.text in {"case", "default"} or self._is_label():
            parsed.word = first.text if first.text in {"case", "default"} else ":"
            while self._tokens[self.at].text != ":":
                self.at += 1
            self.at += 1
            if self._word() != "}":
                self._part(parsed)
        else:
            self._end()
        parsed.last = self._tokens[self.at - 1].line
        return parsed

    def _part(self, parent: Statement) -> None:
        part = self.statement()
        part.parent = parent
        parent.parts.append(part)

    def _word(self) -> str:
        return self._tokens[self.at].text if self.at < len(self._tokens) else ""

    def _is_label(self) -> bool:
        after = self._tokens[self.at + 1].text
        return after == ":" and self._word().isidentifier()

    def _parentheses(self) -> Sequence[Token]:
        """Pass a pair of parentheses, and return what is between them."""
        start, depth = self.at, 0
        while True:
            word = self._tokens[self.at].text
            depth += (word == "(") - (word == ")")
            self.at += 1
            if not depth:
                return self._tokens[start + 1 : self.at - 1]

    def _end(self) -> None:
        """Pass everything up to the semicolon that ends a statement."""
        depth = 0
        while True:
            word = self._tokens[self.at].text
            if not depth and word == "}":
                return
            depth += (word in "({[") - (word in ")}]")
            self.at += 1
            if not depth and word == ";":
                return
