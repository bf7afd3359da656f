"""Two programs that get the same inputs: how their answers and what they leave behind differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import ValueTypeError, with_article
from pytest_bpf.fuzz.contexts import PREFIX
from pytest_bpf.fuzz.state import sums
from pytest_bpf.fuzz.subject import name_setter, together
from pytest_bpf.kernel.programs.runner import REFUSED
from pytest_bpf.kernel.values.actions import action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_bpf.fuzz.state import Content, Snapshot, State
    from pytest_bpf.fuzz.subject import Subject
    from pytest_bpf.kernel.programs.runner import Answer
    from pytest_bpf.objects import Object

States = tuple["Callable[[Object], Any]", "Callable[[Object], Any]"]
"""What is compared in place of what only one of two objects has: a function of each."""

SIDES = ("before", "after")


class Pair:
    """Two programs, asked to do the same.

    ``renames`` has the names that maps and variables of the first have in the second; ``states``
    returns, of each object, what is compared besides what both have. Raises `ValueTypeError` for
    what only one has, unless ``states`` compares it.
    """

    def __init__(
        self,
        before: Subject,
        after: Subject,
        *,
        renames: Mapping[str, str],
        states: States | None = None,
    ) -> None:
        self.subjects = (before, after)
        self._states = states
        self._now: tuple[Snapshot, ...] = ()
        self._names = _shared(before.state, after.state, renames, alone=states is not None)
        self._single = _single(before.state, after.state, self._names)
        self._set_name = name_setter(before.shape)
        self._run = together(self.subjects)

    def after_input(self, data: bytes, answers: Sequence[Answer]) -> str:
        """Return how two answers to an input differ, "" when they do not."""
        first, second = answers
        if first == second:
            return ""
        return self._answers(first, second, len(self.subjects[0].shape.rest(data)))

    def _answers(self, first: Answer, second: Answer, size: int) -> str:
        texts = []
        for subject, answer in zip(self.subjects, (first, second), strict=True):
            if answer is REFUSED:
                texts.append("the kernel refuses the input")
                continue
            verdict = action(subject.program.type, answer[0])
            texts.append(getattr(verdict, "name", str(verdict)))
        if texts[0] != texts[1]:
            return f"before returns {texts[0]}, after {texts[1]}"
        shape = self.subjects[0].shape
        if first[1] == second[1] and shape.context is not None:
            one, two = (shape.context.members_out(answer[2]) for answer in (first, second))
            name = next((name for name in one if one[name] != two[name]), None)
            if name is not None:
                return f"{PREFIX}{name}: before {one[name]}, after {two[name]}"
            return f"the context is {_first_difference(first[2], second[2])}"
        what = "packet" if shape.kind == "packet" else "context"
        return f"the {what} of {size} bytes is {_first_difference(first[1], second[1])}"

    def after_batch(self) -> str:
        """Return how the two states differ, "" when they do not."""
        first, second = self._now = tuple(subject.state.read() for subject in self.subjects)
        return "\n".join(self.differences(first, second))

    def reset(self) -> None:
        """Put both states back to what they were at first."""
        if self._states is not None and not self._now:
            self._other_states()  # events that were sent since belong to no batch
        known = self._now or (None, None)
        for subject, now in zip(self.subjects, known, strict=True):
            subject.reset(now)
        self._now = ()

    def differences(
        self, first: Snapshot, second: Snapshot, *, all_sums: bool = False
    ) -> list[str]:
        """Return how two states differ; with ``all_sums`` per-CPU values count by their sums."""
        texts = []
        for name, other in self._names.items():
            one, two = (
                self._content(0, first, name, all_sums),
                self._content(1, second, other, all_sums),
            )
            if one != two:
                texts.append(self._difference(name, other, one, two))
        if self._states is not None:
            one, two = self._other_states()
            if one != two:
                texts.append(f"states=: before {one!r:.400}, after {two!r:.400}")
        return texts

    def _other_states(self) -> tuple[Any, ...]:
        """Return what ``states`` gives of both objects."""
        assert self._states is not None
        pairs = zip(self._states, self.subjects, strict=True)
        return tuple(of(subject.obj) for of, subject in pairs)

    def differences_of(self, side: int, first: Snapshot, second: Snapshot) -> bool:
        """Tell whether two states of one program differ, per-CPU values by their sums."""
        names = self._names if side == 0 else self._names.values()
        return any(
            self._content(side, first, name, all_sums=True)
            != self._content(side, second, name, all_sums=True)
            for name in names
        )

    def _content(self, side: int, snapshot: Snapshot, name: str, all_sums: bool) -> Any:
        if name in snapshot.variables:
            return snapshot.variables[name]
        if name in snapshot.events:
            return snapshot.events[name]
        content = snapshot.maps[name]
        table = self.subjects[side].state.tables[name]
        if not table.per_cpu:
            return content
        single = name in self._single[side]
        return _summed(content, table.map.value_size) if single or all_sums else content

    def _difference(self, name: str, other: str, one: Any, two: Any) -> str:
        label = f"{name!r}" if name == other else f"{name!r} (after: {other!r})"
        first, second = (subject.state for subject in self.subjects)
        if isinstance(one, tuple):
            at = _first(one, two)
            return f"events of {label}: {len(one)} and {len(two)}; the first that differs is {at}"
        if isinstance(one, bytes) and name in first.memory:
            values = first.value(name, one), second.value(other, two)
            if all(isinstance(value, tuple) for value in values):
                at = _first(*values)
                return f"variable {label}[{at}]: before {values[0][at]!r}, after {values[1][at]!r}"
            texts = first.show(name, one), second.show(other, two)
            return f"variable {label}: before {texts[0]}, after {texts[1]}"
        for key in sorted(_keys(one, two)):
            left, right = _value(first, name, one, key), _value(second, other, two, key)
            if left != right:
                shown = [
                    state.show(of, raw) if raw is not None else "nothing"
                    for state, of, raw in ((first, name, left), (second, other, right))
                ]
                place = key if isinstance(key, int) else key.hex()
                return f"map {label} at {place}: before {shown[0]}, after {shown[1]}"
        return f"map {label}: {len(one)} and {len(two)} bytes"

    def put_back(self) -> None:
        """Put both states back, whatever ran since they were read."""
        self._now = ()
        self.reset()

    def replay(self, sequence: Iterable[bytes]) -> str:
        """Give both the inputs once more from the beginning, and return what is wrong."""
        self.reset()
        for data in sequence:
            if self._set_name is not None:
                self._set_name(data)
            trouble = self.after_input(data, self._run(data))
            if trouble:
                return trouble
        return self.after_batch()

    def unsteady(self, sequence: Sequence[bytes]) -> int | None:
        """Return which subject answers the same inputs differently at times, None for none."""
        self._now = ()
        for number, subject in enumerate(self.subjects):
            results = []
            for _ in range(3):
                subject.reset()
                answers = []
                for data in sequence:
                    if self._set_name is not None:
                        self._set_name(data)
                    answers.append(subject.run(data))
                results.append((answers, subject.state.read()))
            if any(result != results[0] for result in results[1:]):
                return number
        return None


def _shared(
    first: State, second: State, renames: Mapping[str, str], *, alone: bool
) -> dict[str, str]:
    """Return the names of what is compared, in the first and in the second object."""
    names = [{*state.tables, *state.memory, *state.events} for state in (first, second)]
    pairs = {name: renames.get(name, name) for name in sorted(names[0])}
    shared = {name: other for name, other in pairs.items() if other in names[1]}
    missing = [(n, SIDES[0]) for n in pairs if n not in shared]
    missing += [(n, SIDES[1]) for n in sorted(names[1] - set(shared.values()))]
    if missing and not alone:
        name, side = missing[0]
        raise ValueTypeError(
            f"{name!r} is only in the program {side}; name its counterpart by renames={{...}}, "
            f"leave it out by ignore=({name!r},), or say by states= what is compared instead"
        )
    for name, other in shared.items():
        if name in first.tables and other in second.tables:
            _check_sizes(name, other, first, second, alone=alone)
        elif (name in first.tables) != (other in second.tables):
            raise ValueTypeError(f"{name!r} is a map in one program and a variable in the other")
    return {n: o for n, o in shared.items() if n not in first.tables or _alike(n, o, first, second)}


def _single(first: State, second: State, names: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Return the per-CPU maps of each side that stand against a map with one value."""
    mixed = {
        name: other
        for name, other in names.items()
        if name in first.tables and first.tables[name].per_cpu != second.tables[other].per_cpu
    }
    return set(mixed), set(mixed.values())


def _alike(name: str, other: str, first: State, second: State) -> bool:
    one, two = first.tables[name], second.tables[other]
    sizes = [(t.map.key_size, t.map.value_size, t.indexed) for t in (one, two)]
    return sizes[0] == sizes[1] and (not one.indexed or one.map.max_entries == two.map.max_entries)


def _check_sizes(name: str, other: str, first: State, second: State, *, alone: bool) -> None:
    if alone or _alike(name, other, first, second):
        return
    one, two = first.tables[name].map, second.tables[other].map
    raise ValueTypeError(
        f"map {name!r} is {with_article(one.type)} of keys of {one.key_size} and values of "
        f"{one.value_size} bytes, {one.max_entries} entries, before, and "
        f"{with_article(two.type)} of {two.key_size} and "
        f"{two.value_size} bytes, {two.max_entries} entries, after; say by states= how they are "
        "compared"
    )


def _summed(content: Content, value_size: int) -> Content:
    if value_size % 8:
        return content
    if isinstance(content, bytes):
        return sums(content, value_size)
    return {key: sums(value, value_size) for key, value in content.items()}


def _first(one: Sequence[Any], two: Sequence[Any]) -> int:
    """Return the first place where two sequences differ, the end of the shorter at the latest."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((at for at, pair in pairs if pair[0] != pair[1]), min(len(one), len(two)))


def _first_difference(one: bytes, two: bytes) -> str:
    at = _first(one, two)
    sizes = "" if len(one) == len(two) else f", {len(one)} and {len(two)} bytes long"
    return (
        f"different from byte {at} on{sizes}: before {one[at : at + 16].hex()}, "
        f"after {two[at : at + 16].hex()}"
    )


def _keys(one: Any, two: Any) -> Iterable[Any]:
    if isinstance(one, bytes):
        return range(max(len(one), len(two)))
    return {*one, *two}


def _value(state: State, name: str, content: Any, key: Any) -> bytes | None:
    if isinstance(content, dict):
        return content.get(key)
    size = state.tables[name].map.value_size
    if state.tables[name].per_cpu and len(content) > size * state.tables[name].map.max_entries:
        size = state.tables[name].width
    return content[key * size : (key + 1) * size] or None
