"""How tests went: one value a test and kernel, as it stands in a JSON report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from pytest_bpf.budgets import shape
from pytest_bpf.errors import near_matches

if TYPE_CHECKING:
    from collections.abc import Mapping

Result = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]

LONGEST = 20_000
"""Characters of a failure's text that a report keeps, its end."""


@dataclass(frozen=True)
class Place:
    """A line that a failure is about: ``file`` as pytest or the compiler names it."""

    file: str
    line: int
    message: str


@dataclass(frozen=True)
class Step:
    """A step of a test's path, in milliseconds from the beginning of its setup.

    ``kind`` is what it was: ``load``, ``attach``, ``stimulus``, ``test_run``, ``map``, ``events``,
    ``detach``; or what that made, with ``depth`` 1: ``run``, ``lines``, ``drops``, ``printk``.
    """

    start: float
    end: float
    kind: str
    text: str
    depth: int = 0


@dataclass(frozen=True)
class Outcome:
    """How one test went on one kernel.

    ``message`` is the failure, or why it was skipped, in one line; ``text`` all of pytest's
    explanation, ``state`` the state of BPF. ``places`` are the lines that it is about, ``path`` is
    what it did, where that was recorded; ``artifacts`` are the files that were kept of it.
    """

    test: str
    kernel: str
    result: Result
    seconds: float
    message: str = ""
    text: str = ""
    state: str = ""
    places: tuple[Place, ...] = ()
    path: tuple[Step, ...] = ()
    artifacts: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, without what says nothing."""
        content = {name: value for name, value in asdict(self).items() if value not in ("", ())}
        if self.places:
            content["places"] = [asdict(place) for place in self.places]
        if self.path:
            content["path"] = [asdict(step) for step in self.path]
        return content

    @classmethod
    def from_dict(cls, content: object, where: str) -> Outcome:
        """Read one; raises `shape.ShapeError` for what is none."""
        values = shape.mapping(content, where)
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise shape.ShapeError(f"{where} has {name!r}{near_matches(name, known)}")
        result = shape.string(shape.member(values, "result", where), f"{where}.result")
        if result not in get_args(Result):
            hint = near_matches(result, get_args(Result))
            raise shape.ShapeError(f"{where}.result is {result!r}{hint}")
        texts = {
            name: shape.string(values.get(name, ""), f"{where}.{name}")
            for name in ("message", "text", "state")
        }
        places = shape.array(values.get("places", []), f"{where}.places")
        path = shape.array(values.get("path", []), f"{where}.path")
        files = shape.array(values.get("artifacts", []), f"{where}.artifacts")
        return cls(
            test=shape.string(shape.member(values, "test", where), f"{where}.test"),
            kernel=shape.string(shape.member(values, "kernel", where), f"{where}.kernel"),
            result=result,  # type: ignore[arg-type]
            seconds=shape.number(shape.member(values, "seconds", where), f"{where}.seconds"),
            places=tuple(_place(each, f"{where}.places") for each in places),
            path=tuple(step_of(each, f"{where}.path") for each in path),
            artifacts=tuple(shape.string(each, f"{where}.artifacts") for each in files),
            **texts,
        )


def _place(content: object, where: str) -> Place:
    values: Mapping[str, Any] = shape.mapping(content, where)
    line = shape.number(shape.member(values, "line", where), f"{where}.line")
    return Place(
        shape.string(shape.member(values, "file", where), f"{where}.file"),
        int(line),
        shape.string(shape.member(values, "message", where), f"{where}.message"),
    )


def step_of(content: object, where: str) -> Step:
    """Return a step of a path; raises `shape.ShapeError` for what is none."""
    values: Mapping[str, Any] = shape.mapping(content, where)
    start, end = (
        shape.number(shape.member(values, n, where), f"{where}.{n}") for n in ("start", "end")
    )
    kind, text = (
        shape.string(shape.member(values, n, where), f"{where}.{n}") for n in ("kind", "text")
    )
    return Step(start, end, kind, text, int(shape.number(values.get("depth", 0), f"{where}.depth")))
