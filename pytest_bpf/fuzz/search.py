"""The search: inputs that reach something new are kept, and new ones are made of them.

Inputs come in batches, each of which begins with the state as it was at first. What is asked after
every input and after every batch is the `Question`'s matter.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

from pytest_bpf.errors import RunError, ValueTypeError
from pytest_bpf.fuzz.bulk import Source
from pytest_bpf.fuzz.mutation import constants, hints, tokens
from pytest_bpf.fuzz.state import BUFFERS
from pytest_bpf.fuzz.subject import name_setter, together
from pytest_bpf.kernel.programs.runner import REFUSED
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_bpf.fuzz.inputs import Form
    from pytest_bpf.fuzz.subject import Subject
    from pytest_bpf.kernel.programs.runner import Answer

BATCH = 256
"""Inputs that run one after another before the state is looked at and put back; twice as many where
no buffer has to hold what they send."""

AT_ONCE = 64
"""How many inputs are chosen before they run: what one reaches tells only about later ones."""

FEW = 8
"""How many of the inputs to begin with are kept, whatever they reach."""

WAITING = 20_000
"""The most hints that wait to be tried."""

CONTENTS = 4096
"""The most words that are taken from constants and contents of maps."""


class Question(Protocol):
    """What a search looks for."""

    @property
    def subjects(self) -> Sequence[Subject]:
        """The programs that get each input."""

    def after_input(self, data: bytes, answers: Sequence[Answer]) -> str:
        """Return what is wrong with the answers to one input, "" for nothing."""

    def after_batch(self) -> str:
        """Return what is wrong with the states after a batch, "" for nothing."""

    def reset(self) -> None:
        """Put the states back to what they were at first, just after `after_batch`."""

    def put_back(self) -> None:
        """Put the states back, whatever ran since they were read, to give a batch once more."""


@dataclass(frozen=True)
class Limit:
    """When a search ends: after so many inputs, or seconds."""

    count: int
    seconds: float = float("inf")


def limit(count: int, seconds: float | None, seed: int) -> Limit:
    """Return when a search ends.

    `ValueTypeError` for a limit that lets nothing run, and for a seed that is no number: another
    search would not do the same.
    """
    if type(seed) is not int:
        raise ValueTypeError(f"seed is {seed!r}; it is a number, and the same one does the same")
    if not (type(count) is int and count > 0):
        raise ValueTypeError(f"count is {count!r}; it is how many inputs to try, at least 1")
    if seconds is not None and not seconds > 0:
        raise ValueTypeError(f"seconds is {seconds!r}; it is how long to search, more than 0")
    return Limit(count, float("inf") if seconds is None else seconds)


@dataclass
class Progress:
    """What a search did: ``corpus`` are the inputs that reached something new.

    ``trouble`` says what was wrong, and ``sequence`` has the inputs of that batch. ``reached`` are
    the hits of each subject over all inputs.
    """

    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    corpus: list[bytes] = field(default_factory=list)
    reached: list[bytes] = field(default_factory=list)
    trouble: str = ""
    sequence: list[bytes] = field(default_factory=list)


def search(
    question: Question, shape: Form, limit: Limit, seed: int, start: Sequence[bytes]
) -> Progress:
    """Give the programs inputs until the limit, or until the question finds something wrong.

    ``start`` are those that it begins with. Raises `RunError` when the kernel refuses all of them.
    """
    return _Search(question, shape, limit, seed).run(list(start))


class _Search:
    def __init__(self, question: Question, shape: Form, limit: Limit, seed: int) -> None:
        self.question, self.shape, self.limit = question, shape, limit
        self.subjects = question.subjects
        self.progress = Progress()
        self._refusal = 0
        self._source = Source(Random(seed), shape, words_of(self.subjects))  # noqa: S311
        self._set_name = name_setter(shape)
        self._run = together(self.subjects)
        self._compare = together(self.subjects, [s.operands for s in self.subjects])
        self._hits, self._seen = _hits_of(self.subjects), b""
        self._batch = BATCH if _has_buffers(self.subjects) else 2 * BATCH
        self._queue: deque[bytes] = deque(maxlen=WAITING)

    def run(self, start: list[bytes]) -> Progress:
        progress, limit, begin = self.progress, self.limit, time.monotonic()
        waiting = start[::-1]
        self.question.reset()
        self._seen = self._hits()
        try:
            while progress.inputs < limit.count and not progress.trouble:
                if time.monotonic() - begin > limit.seconds:
                    break
                left = min(limit.count - progress.inputs, self._batch - len(progress.sequence))
                first = bool(waiting)
                self._give(self._next(waiting, min(left, AT_ONCE)), FEW if first else 0)
                if len(progress.sequence) >= self._batch and not progress.trouble:
                    self._end_batch()
            if not progress.trouble:
                self._check_accepted()
                self._end_batch()
        finally:
            progress.seconds = time.monotonic() - begin
            progress.reached = self._reached()
        return progress

    def _next(self, waiting: list[bytes], count: int) -> list[bytes]:
        """Return inputs: those to begin with, then mutations, between them three hints each.

        Of the hints the oldest and the newest come in turn.
        """
        if waiting:
            taken, waiting[:] = waiting[-count:][::-1], waiting[:-count]
            return taken
        self._check_accepted()
        queue, corpus = self._queue, self.progress.corpus
        if not queue:
            return self._source.take(corpus, count)
        result: list[bytes] = []
        while len(result) < count:
            hints_now = (take() for take in (queue.popleft, queue.pop, queue.pop) if queue)
            result += [*hints_now, *self._source.take(corpus, 1)]
        return result[:count]

    def _give(self, inputs: list[bytes], few: int) -> None:
        """Give inputs to all programs until something is wrong; keep the first ``few`` anyhow."""
        progress, set_name = self.progress, self._set_name
        run, hits, after_input = self._run, self._hits, self.question.after_input
        sequence, begin = progress.sequence, len(progress.sequence)
        for data in inputs:
            sequence.append(data)
            if set_name is not None:
                set_name(data)
            answers = run(data)
            if answers[0] is REFUSED:
                progress.refused += 1
                self._refusal = ctypes.get_errno()
            progress.trouble = after_input(data, answers)
            if progress.trouble:
                break
            now = hits()
            if now != self._seen:
                self._seen = now
                progress.corpus.append(data)
                self._take_hints(data)
            elif few and len(progress.corpus) < few:
                progress.corpus.append(data)
        progress.inputs += len(sequence) - begin

    def _take_hints(self, data: bytes) -> None:
        """Give the batch once more, its last input to the builds that tell what they compare."""
        self.question.put_back()
        for earlier in self.progress.sequence[:-1]:
            if self._set_name is not None:
                self._set_name(earlier)
            self._run(earlier)
        if self._set_name is not None:
            self._set_name(data)
        self._compare(data)
        for subject in self.subjects:
            twin = subject.operands
            self._queue += hints(twin.build, twin.operands(), data, self.shape)

    def _end_batch(self) -> None:
        self.progress.trouble = self.question.after_batch()
        if not self.progress.trouble:
            self.progress.sequence.clear()
            self.question.reset()

    def _reached(self) -> list[bytes]:
        return [bytes(subject.hit.counters) for subject in self.subjects]

    def _check_accepted(self) -> None:
        progress = self.progress
        if progress.refused == progress.inputs:
            subject = self.subjects[0]
            raise RunError(
                f"program {subject.program.name!r} ({subject.program.type}): the kernel refuses "
                f"every test run: {libbpf.reason(self._refusal)}",
                self._refusal,
            )


def _hits_of(subjects: Sequence[Subject]) -> Callable[[], bytes]:
    """Return what reads the hits of all subjects, end to end."""
    places = [(subject.hit.memory, subject.hit.build.size) for subject in subjects]
    if len(places) == 2:
        (one, first), (two, second) = places
        return lambda: one[:first] + two[:second]
    return lambda: b"".join([memory[:size] for memory, size in places])


def _has_buffers(subjects: Sequence[Subject]) -> bool:
    """Say whether programs send events, also where others than the search read them."""
    maps = (entry for subject in subjects for entry in subject.obj.maps.values())
    return any(entry.type in BUFFERS for entry in maps)


def words_of(subjects: Sequence[Subject]) -> list[bytes]:
    """Return what is put into inputs: constants of programs, read-only data, contents of maps."""
    words: set[bytes] = set()
    for subject in subjects:
        words |= constants(subject.flow)
        for name in subject.obj.globals:
            value = subject.obj.globals[name]
            if isinstance(value, int):
                words |= set(tokens(value % 2**64))
            elif isinstance(value, (bytes, str)):
                words.add(value.encode() if isinstance(value, str) else value)
        for content in subject.start.maps.values():
            if isinstance(content, dict):
                for key, value in list(content.items())[:64]:
                    words |= {key, value[:64]}
    return sorted(word for word in words if word)[:CONTENTS]
