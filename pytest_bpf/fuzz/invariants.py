"""What must hold for every input of a program, and inputs that look for one where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError, ValueTypeError
from pytest_bpf.fuzz.corpus import Corpus
from pytest_bpf.fuzz.inputs import seeds
from pytest_bpf.fuzz.paths import Reach, path, reach
from pytest_bpf.fuzz.place import one_subject
from pytest_bpf.fuzz.search import Progress, limit, search
from pytest_bpf.fuzz.shrink import shrink
from pytest_bpf.fuzz.subject import name_setter
from pytest_bpf.kernel.layers.buffers import to_bytes
from pytest_bpf.kernel.layers.packet import Packet
from pytest_bpf.kernel.programs.runner import REFUSED
from pytest_bpf.kernel.values.actions import action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from pytest_bpf.fuzz.subject import Subject
    from pytest_bpf.kernel.programs.runner import Answer
    from pytest_bpf.objects import Object

    Invariant = Callable[["Trial"], object]
    After = Callable[[Object, int], object]

COUNT = 20_000
"""How many inputs a program gets, unless it is said."""


class InvariantError(BpfError, AssertionError):
    """An input for which an invariant does not hold; the message has the smallest one found."""


class Trial:
    """One run: the input's bytes ``data``, ``retval`` (named), ``data_out``; ``parts`` by name.

    ``packet`` and ``packet_out`` are the packet before and afterwards, by layers.
    """

    __slots__ = ("_answer", "_raw", "_subject")

    def __init__(self, subject: Subject, raw: bytes, answer: Answer) -> None:
        self._subject, self._raw, self._answer = subject, raw, answer

    @property
    def data(self) -> bytes:
        """The packet, the arguments or the context that the program was given."""
        return self._subject.shape.rest(self._raw)

    @property
    def parts(self) -> dict[str, bytes]:
        """The other parts of the input: clocks, random numbers, names, variables."""
        parts = self._subject.shape.own_parts
        return {part.name: self._raw[part.start : part.start + part.size] for part in parts}

    @property
    def context(self) -> dict[str, int | bytes]:
        """The members of the packet's context that the program reads, by name."""
        context = self._subject.shape.context
        return context.members(self._raw) if context is not None else {}

    @property
    def context_out(self) -> dict[str, int]:
        """The members of the packet's context afterwards; none where the program leaves it."""
        context = self._subject.shape.context
        return context.members_out(self._answer[2]) if context is not None else {}

    @property
    def retval(self) -> int:
        """What the program returned, signed, and by name where its kind has names."""
        return action(self._subject.program.type, self._answer[0])

    @property
    def data_out(self) -> bytes:
        """The packet or the context afterwards."""
        context = self._subject.shape.context
        begin = context.packet_begin(self._answer[2]) if context is not None else 0
        return self._answer[1][begin:]

    @property
    def packet(self) -> Packet:
        """The packet, by layers."""
        return Packet(self.data)

    @property
    def packet_out(self) -> Packet:
        """The packet afterwards, by layers."""
        return Packet(self.data_out)


@dataclass(frozen=True)
class Campaign:
    """A search that found nothing wrong: how many inputs, and how much of the program they reached.

    ``corpus`` is how many inputs are kept: each reaches what no other does.
    """

    inputs: int
    refused: int
    seconds: float
    seed: int
    reach: Reach
    corpus: int

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs (seed {self.seed}, {self.refused} refused by the kernel): lines "
            f"{self.reach.lines_text}, blocks {self.reach.blocks_text}; {self.corpus} are kept"
        )


class _Invariants:
    """The question of one program: whether what must hold does."""

    def __init__(self, subject: Subject, invariant: Invariant | None, after: After | None) -> None:
        self.subjects = (subject,)
        self._subject, self._invariant, self._after = subject, invariant, after
        self._set_name = name_setter(subject.shape)
        self._runs = 0
        self.cause: BaseException | None = None

    def after_input(self, data: bytes, answers: Sequence[Answer]) -> str:
        """Return what the invariant says against a run."""
        if answers[0] is REFUSED:
            return ""
        self._runs += 1
        if self._invariant is None:
            return ""
        return self._says(self._invariant, Trial(self._subject, data, answers[0]))

    def after_batch(self) -> str:
        """Return what is wrong with the state after all runs since it was put back."""
        return self._says(self._after, self._subject.obj, self._runs) if self._after else ""

    def _says(self, of: Callable[..., object], *arguments: Any) -> str:
        name = getattr(of, "__name__", "the invariant")
        try:
            result = of(*arguments)
        except AssertionError as error:
            self.cause = error
            return f"{name}: {str(error).splitlines()[0] if str(error) else 'it does not hold'}"
        except Exception as error:  # noqa: BLE001 (whatever a user's function raises is an answer)
            self.cause = error
            return f"{name} raises {type(error).__name__}: {error}"
        return f"{name} returns False" if result is False else ""

    def reset(self) -> None:
        """Put the state back."""
        self._runs = 0
        self._subject.reset()

    def put_back(self) -> None:
        """Put the state back, to give a batch once more: the runs count once."""
        self._subject.reset()

    def replay(self, sequence: Iterable[bytes]) -> str:
        """Give the inputs once more from the beginning, and return what is wrong."""
        self.reset()
        for data in sequence:
            if self._set_name is not None:
                self._set_name(data)
            trouble = self.after_input(data, [self._subject.run(data)])
            if trouble:
                return trouble
        return self.after_batch()


@dataclass(frozen=True)
class Harvest:
    """What one of several processes found: ``corpus`` reached something, ``failure`` failed."""

    inputs: int
    refused: int
    corpus: tuple[bytes, ...]
    failure: tuple[bytes, ...]


def explore(
    obj: Object,
    invariant: Invariant | None = None,
    *,
    program: str | None = None,
    after: After | None = None,
    corpus: Path | None = None,
    start: Sequence[bytes] = (),
    inputs: Iterable[str] = (),
    count: int = COUNT,
    seconds: float | None = None,
    seed: int = 0,
) -> Harvest:
    """Return what a search finds, for `check_invariants` in another process to go on with."""
    with one_subject(obj, program, inputs) as subject:
        question = _Invariants(subject, invariant, after)
        begin = _beginning(subject, start, _corpus(subject, corpus))
        done = search(question, subject.shape, limit(count, seconds, seed), seed, begin)
    failure = done.sequence if done.trouble else ()
    return Harvest(done.inputs, done.refused, tuple(done.corpus), tuple(failure))


def check_invariants(
    obj: Object,
    invariant: Invariant | None = None,
    *,
    program: str | None = None,
    after: After | None = None,
    corpus: Path | None = None,
    start: Sequence[bytes] = (),
    inputs: Iterable[str] = (),
    count: int = COUNT,
    seconds: float | None = None,
    seed: int = 0,
    others: Callable[[], Sequence[Harvest]] = tuple,
    replay: Sequence[bytes] = (),
    about: Mapping[str, str] | None = None,
) -> Campaign:
    """Give a program inputs, and ask after each whether an invariant holds; see ``bpf_fuzz``.

    ``others`` returns what other processes found meanwhile. With ``replay``, inputs of a failure as
    they were kept, no others are tried. ``about`` is kept with a failure.

    Raises `InvariantError`, `RunError`, `UnknownNameError`, and `ValueTypeError` for a folder that
    is none.
    """
    ends_at = limit(count, seconds, seed)
    for name, function in (("invariant", invariant), ("after", after)):
        if function is not None and not callable(function):
            raise ValueTypeError(f"{name} is {function!r}; it is a function that is called")
    with one_subject(obj, program, inputs) as subject:
        question = _Invariants(subject, invariant, after)
        kept = _corpus(subject, corpus)
        if kept is not None:
            for failure in kept.failures():
                if question.replay(failure):
                    raise _failure(question, failure, f"known from {kept.folder}")
        if replay:
            return _replay(question, replay)
        begin = _beginning(subject, start, kept)
        done = search(question, subject.shape, ends_at, seed, begin)
        keep = partial(kept.keep_failure, about=about or {}) if kept is not None else None
        if done.trouble:
            raise _failure(question, done.sequence, f"seed {seed}", keep)
        for number, harvest in enumerate(others(), 1):
            if harvest.failure:
                where = f"seed {seed + number}"
                raise _failure(question, harvest.failure, where, keep)
            done.inputs += harvest.inputs
            done.refused += harvest.refused
            done.corpus += harvest.corpus
        smallest, hits = _needed(subject, done)
        if kept is not None:
            kept.keep(smallest)
        both = bytes(one | other for one, other in zip(done.reached[0], hits, strict=True))
        reached = reach(subject, both)
    return Campaign(done.inputs, done.refused, done.seconds, seed, reached, len(smallest))


def _replay(question: _Invariants, given: Sequence[bytes]) -> Campaign:
    """Give inputs of a failure once more; raises `InvariantError` when they still fail."""
    subject = question.subjects[0]
    sequence = [
        subject.shape.fit(bytearray(to_bytes(data, "an input of replay="))) for data in given
    ]
    subject.hit.clear()
    if question.replay(sequence):
        raise _failure(question, sequence, "replay=")
    reached = reach(subject, bytes(subject.hit.counters))
    return Campaign(len(sequence), 0, 0.0, 0, reached, 0)


def _corpus(subject: Subject, folder: Path | None) -> Corpus | None:
    return Corpus(folder, subject.program.name) if folder else None


def _beginning(subject: Subject, start: Sequence[bytes], kept: Corpus | None) -> list[bytes]:
    """Return the inputs to begin with: usual ones, those given, those of the folder."""
    shape = subject.shape
    again = [shape.fit(bytearray(data)) for data in (kept.inputs() if kept else ())]
    return seeds(shape, start) + again


def _failure(
    question: _Invariants,
    sequence: Sequence[bytes],
    where: str,
    keep: Callable[[Sequence[bytes]], Path] | None = None,
) -> InvariantError:
    subject = question.subjects[0]
    shape = subject.shape
    smallest = shrink(list(sequence), lambda inputs: bool(question.replay(inputs)), shape)
    trouble = question.replay(smallest)
    if not trouble:
        smallest, trouble = list(sequence), "it failed once, and not again for the same inputs"
    cause = question.cause
    lines = [f"program {subject.program.name!r}: {trouble}"]
    for number, data in enumerate(smallest, 1):
        which = f"input {number} of {len(smallest)}" if len(smallest) > 1 else "the input"
        lines += [f"{which}:", *(f"  {line}" for line in shape.show(data).splitlines())]
    lines += ["the way:", *(f"  {line}" for line in path(subject, smallest)), f"found by {where}"]
    if keep is not None:
        path_ = keep(smallest)
        lines.append(
            f"kept in {path_}, which is tried first from now on; a test of it is written by: "
            f"pytest-bpf regression {path_}"
        )
    error = InvariantError("\n".join(lines))
    error.__cause__ = cause
    return error


def _needed(subject: Subject, done: Progress) -> tuple[list[bytes], bytes]:
    """Return the shortest inputs that together reach what all do, each from the first state.

    Also return what they reach.
    """
    needed: list[bytes] = []
    reached = bytes(subject.hit.build.size)
    set_name = name_setter(subject.shape)
    for data in sorted(done.corpus, key=len):
        subject.reset()
        subject.hit.clear()
        if set_name is not None:
            set_name(data)
        subject.run(data)
        both = bytes(map(max, reached, subject.hit.counters))
        if both != reached:
            reached = both
            needed.append(data)
    return needed, reached
