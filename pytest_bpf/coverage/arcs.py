"""From branches to arcs: from which line to which one the program went, as coverage.py has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.coverage.c_source import LOOPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_bpf.coverage.c_source import CSource, Statement, Token
    from pytest_bpf.coverage.values import Branch, FileLines

Arc = tuple[int, int]
"""Two lines; a target below 0 is the end of the function that starts at that line."""

Outcome = tuple[int, int]
"""How often a condition was true, and false."""


def arcs(source: CSource, file: FileLines) -> dict[Arc, int]:
    """Return the arcs of the lines that go on in more than one way, and how often each was taken.

    None are known of lines that were counted by instructions. A condition whose outcome no counter
    of its own tells (a macro's) is told by its lines.
    """
    taken: dict[Arc, int] = {}
    if file.approximate:
        return taken
    for function in source.functions:
        for statement in function.walk():
            if statement.line not in file.lines and statement.word != "do":
                continue
            ways = dict(_ways(statement, function, file))
            if len(ways) > 1:
                taken.update(ways)
    return taken


def _ways(statement: Statement, function: Statement, file: FileLines) -> Iterator[tuple[Arc, int]]:
    if statement.word == "switch":
        yield from _cases(statement, file)
    elif statement.word in {"if", *LOOPS} and statement.condition:
        line = statement.condition[0].line if statement.word == "do" else statement.line
        body, end = statement.parts[0], -function.line
        after = statement.successor()
        other = statement.parts[1].entry() if len(statement.parts) > 1 else after
        targets = [body.entry() or after or end, other or after or end]
        targets[0] = _same_line(line, targets, body, end)
        if targets[1] == line:
            targets[1] = -line if targets[0] != -line else end
        outcome = _outcome(statement.condition, file.branches)
        if outcome is None:
            outcome = _by_lines(line, targets[0], file.lines)
        if outcome is not None and targets[0] != targets[1]:
            yield (line, targets[0]), outcome[0]
            yield (line, targets[1]), outcome[1]


def _same_line(line: int, targets: Sequence[int], body: Statement, end: int) -> int:
    """Return where a true condition leads, when the body stands on its line: out, or there."""
    if targets[0] != line:
        return targets[0]
    leaves = body.word == "return" or (body.parts and body.parts[0].word == "return")
    return end if leaves and targets[1] != end else -line


def _cases(statement: Statement, file: FileLines) -> Iterator[tuple[Arc, int]]:
    """Yield the arcs to the labels of a switch."""
    counts: dict[int, int] = {}
    for label in _labels(statement):
        target = label.entry() or label.successor()
        branch = next((b for b in file.branches if b.line == label.line), None)
        if target is not None and branch is not None and target != statement.line:
            counts[target] = counts.get(target, 0) + branch.true
    for target, count in counts.items():
        yield (statement.line, target), count


def _labels(statement: Statement) -> Iterator[Statement]:
    for part in statement.parts:
        if part.word in {"case", "default"}:
            yield part
        if part.word != "switch":
            yield from _labels(part)


def _by_lines(line: int, target: int, lines: Mapping[int, int]) -> Outcome | None:
    """Return the outcome of a condition by the counts of its line and of its body's."""
    if target not in lines or target == line or line not in lines:
        return None
    return lines[target], max(0, lines[line] - lines[target])


def _outcome(condition: Sequence[Token], branches: Sequence[Branch]) -> Outcome | None:
    """Return how often a condition was true and false, from those of its operands."""
    if len(parts := _split(condition, ";")) == 3:  # of a for
        condition = parts[1]
    while _enclosed(condition):
        condition = condition[1:-1]
    for sign in ("||", "&&"):
        parts = _split(condition, sign)
        if len(parts) > 1:
            outcomes = [_outcome(part, branches) for part in parts]
            if None in outcomes:
                return None
            own = [outcome for outcome in outcomes if outcome is not None]
            true, false = sum(o[0] for o in own), sum(o[1] for o in own)
            return (true, own[-1][1]) if sign == "||" else (own[-1][0], false)
    if not condition:
        return None
    if condition[0].text == "!" and _enclosed(condition[1:]):
        inner = _outcome(condition[1:], branches)
        if inner is not None:
            return inner[1], inner[0]
    first, last = condition[0], condition[-1]
    for b in branches:
        if (first.line, first.column) == (b.line, b.column) and b.end_line >= last.line:
            return b.true, b.false
    return None


def _split(tokens: Sequence[Token], sign: str) -> list[Sequence[Token]]:
    parts, depth, start = [], 0, 0
    for at, token in enumerate(tokens):
        depth += (token.text in "({[") - (token.text in ")}]")
        if not depth and token.text == sign:
            parts.append(tokens[start:at])
            start = at + 1
    return [*parts, tokens[start:]]


def _enclosed(tokens: Sequence[Token]) -> bool:
    """Say whether one pair of parentheses is around all of it."""
    if len(tokens) < 2 or tokens[0].text != "(" or tokens[-1].text != ")":
        return False
    depth = 0
    for token in tokens[:-1]:
        depth += (token.text == "(") - (token.text == ")")
        if not depth:
            return False
    return True
