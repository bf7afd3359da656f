"""How much slower a workload is with a program attached, and whose that is: the hook's or its own.

The workload runs detached, with an empty program on the same hook, and attached, in rounds. A
round has each of the three once, in an order drawn by ``seed``, the next round the same backwards,
so that what drifts hits all three alike. A round's three times belong together: their quotients are
what is looked at, and a machine that was slow for a round was so for all of them.

How long it takes depends on how sure it gets. Looking again and again until the answer pleases
makes false alarms; so there are few looks, fixed beforehand (`LOOKS`), and each is so strict that
all of them together are wrong in 5 % at most.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from pytest_bpf.costs.figures.figure import Figure, Instrument
from pytest_bpf.costs.figures.intervals import CONFIDENCE, rank_interval
from pytest_bpf.costs.instruments.consumer import Consumer
from pytest_bpf.costs.instruments.instrument import instrument
from pytest_bpf.errors import BpfError, LoadError, UnavailableError
from pytest_bpf.errors.arguments import checked
from pytest_bpf.kernel.programs.run_time_stats import paused
from pytest_bpf.kernel.sys.exact import is_exact
from pytest_bpf.objects import Object, Program
from pytest_bpf.objects.loading.empty_program import empty_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_bpf.costs.instruments.consumer import Consuming

LOOKS = (12, 24, 48, 96)
"""Rounds after which it may stop; when the time is up it looks once more, for the last time."""

VISIT = 0.02
"""Seconds that a workload is repeated for in each state, at least."""

MOST_CALLS = 200
"""And how often at most."""

STATES = DETACHED, EMPTY, ATTACHED = "detached", "empty", "attached"


@dataclass(frozen=True)
class Estimate:
    """A share (0.02 is 2 %) with its 95 % confidence interval.

    Both bounds are infinite when there were too few rounds to tell.
    """

    value: float
    lower: float
    upper: float

    @property
    def bounded(self) -> bool:
        """Whether the bounds are known."""
        return math.isfinite(self.upper)

    def figure(self, metric: str, instrument: Instrument) -> Figure:
        """Return it as a figure of the workload as a whole."""
        lower, upper = (self.lower, self.upper) if self.bounded else (None, None)
        return Figure(metric, "", self.value, lower, upper, instrument)

    def __str__(self) -> str:
        between = f"{self.lower:+.1%} to {self.upper:+.1%}" if self.bounded else "bounds unknown"
        return f"{self.value:+.1%} ({between})"


@dataclass(frozen=True)
class Overhead:
    """How much slower a workload is with the program attached, as shares of its time without.

    ``slow_down`` is the whole, ``hook`` what an empty program on the same hook makes, ``program``
    what the program adds to that; ``consumer`` the CPU time of the consuming process, None without
    one (on another CPU it slows nothing down). ``seconds`` is the workload's time, detached.

    ``sure`` says whether the interval of ``slow_down`` became as narrow as was asked, or decided
    about the limit; if not, the interval is right, but too wide. ``rounds`` is the number of
    rounds.
    """

    slow_down: Estimate
    hook: Estimate
    program: Estimate
    consumer: Estimate | None
    seconds: float
    rounds: int
    sure: bool
    instrument: Instrument = "clock"

    def figures(self) -> tuple[Figure, ...]:
        """Return ``overhead``, and its parts as ``overhead_hook``, ``_program``, ``_consumer``."""
        parts = {
            "overhead": self.slow_down,
            "overhead_hook": self.hook,
            "overhead_program": self.program,
            "overhead_consumer": self.consumer,
        }
        return tuple(
            estimate.figure(name, self.instrument) for name, estimate in parts.items() if estimate
        )

    def __str__(self) -> str:
        parts = [f"overhead {self.slow_down}: hook {self.hook}", f"program {self.program}"]
        parts += [f"consumer's CPU {self.consumer}"] if self.consumer else []
        doubt = "" if self.sure else "; not sure: the machine was too noisy for the time given"
        return f"{', '.join(parts)}, {self.rounds} rounds{doubt}"


class MeasureOverhead(Protocol):
    """What `overhead` is; the fixture ``bpf_overhead`` gives it."""

    def __call__(
        self,
        programs: Program | Object,
        workload: Callable[[], object],
        target: Any = None,
        *,
        precision: float = 0.02,
        limit: float | None = None,
        seconds: float = 20.0,
        consumer: Consuming | None = None,
        seed: int = 1,
        **options: Any,
    ) -> Overhead:
        """Measure how much slower ``workload`` is with ``programs`` attached."""


@checked
def overhead(
    programs: Program | Object,
    workload: Callable[[], object],
    target: Any = None,
    *,
    precision: float = 0.02,
    limit: float | None = None,
    seconds: float = 20.0,
    consumer: Consuming | None = None,
    seed: int = 1,
    **options: Any,
) -> Overhead:
    """Measure how much slower ``workload`` is with ``programs`` attached than without.

    ``programs`` is one program, or an object. A program is attached to ``target`` with ``options``,
    as `Program.attach` takes them. Of an object, every program is attached whose section says
    where. Nothing of it may be attached before.

    It stops when the interval of the slow-down reaches no further than ``precision``, as a share of
    the workload's time with it, to either side; or, with ``limit``, when it lies on one side of
    that. After ``seconds`` it stops in any case, and says by `Overhead.sure` that it is not sure.

    Raises `AttachError` and what the workload raises, and `UnavailableError` where the kernel
    attaches no program of that kind, or when there is no empty program of it.
    """
    if precision <= 0 or seconds <= 0:
        raise BpfError(f"precision and seconds must be above 0: {precision=}, {seconds=}")
    if is_exact():
        instrument()  # refuses where time does not count
    cpu_seconds = Consumer.find(consumer).cpu_seconds if consumer is not None else None
    attachable = _attachable(programs)
    with paused(), ExitStack() as stack:
        empties = [stack.enter_context(_empty(program)) for program in attachable]
        programs_by_state = {DETACHED: [], EMPTY: empties, ATTACHED: attachable}
        rounds = _Rounds(programs_by_state, workload, target, options, cpu_seconds)
        chance = random.Random(seed)  # noqa: S311 (an order, no secret)
        return rounds.until_sure(precision, limit, time.monotonic() + seconds, chance)


def _attachable(programs: Program | Object) -> list[Program]:
    if isinstance(programs, Program):
        return [programs]
    attachable = [program for program in programs.programs.values() if program.auto_attachable]
    if not attachable:
        raise BpfError(
            f"{programs.path.name}: no program's section says where to attach it; pass one"
        )
    return attachable


@contextmanager
def _empty(like: Program) -> Iterator[Program]:
    """Load an empty program for the hook of another one."""
    try:
        obj = empty_program(like.section, like.type)
    except LoadError as error:
        raise UnavailableError(
            f"there is no empty program to compare {like.name!r} ({like.section}) with: {error}"
        ) from None
    with obj:
        yield obj.programs["empty"]


@dataclass
class _Rounds:
    """The rounds so far: seconds of the workload by state, and of the consumer's CPU in it."""

    programs_by_state: dict[str, list[Program]]
    workload: Callable[[], object]
    target: Any
    options: dict[str, Any]
    cpu_seconds: Callable[[], float] | None
    calls: int = 1
    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STATES})
    consumer_seconds: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in STATES}
    )

    def until_sure(
        self, precision: float, limit: float | None, end: float, chance: random.Random
    ) -> Overhead:
        """Go on until it is sure, or time is up."""
        order: list[str] = []
        self.calls = self._how_often()
        with ExitStack() as now:
            standing = DETACHED
            while True:
                order = order[::-1] if order and len(self.times[DETACHED]) % 2 else _shuffle(chance)
                for state in order:
                    if state != standing:
                        now.close()
                        for program in self.programs_by_state[state]:
                            link = program.attach(self.target, **self.options)
                            now.callback(link.detach)
                        standing = state
                        self.workload()  # the first time after a change is another
                    self._visit(state)
                late = time.monotonic() >= end
                if late or len(self.times[DETACHED]) in LOOKS:
                    result = self._estimate(precision, limit)
                    if result.sure or late or result.rounds == LOOKS[-1]:
                        return result

    def _how_often(self) -> int:
        """Return how often to repeat the workload in a visit, by its time when it is warm."""
        self.workload()
        start = time.perf_counter()
        self.workload()
        once = max(time.perf_counter() - start, 1e-9)
        return min(MOST_CALLS, max(1, round(VISIT / once)))

    def _visit(self, state: str) -> None:
        before = self.cpu_seconds() if self.cpu_seconds else 0.0
        calls = []
        for _ in range(self.calls):
            start = time.perf_counter()
            self.workload()
            calls.append(time.perf_counter() - start)
        after = self.cpu_seconds() if self.cpu_seconds else 0.0
        self.times[state].append(median(calls))
        self.consumer_seconds[state].append((after - before) / self.calls)

    def _estimate(self, precision: float, limit: float | None) -> Overhead:
        bare, empty, full = (self.times[state] for state in STATES)
        consumer = None
        if self.cpu_seconds:
            more = zip(
                self.consumer_seconds[ATTACHED], self.consumer_seconds[DETACHED], bare, strict=True
            )
            consumer = _interval(
                [(with_program - without) / base for with_program, without, base in more]
            )
        slow_down = _interval(
            [with_program / base - 1 for with_program, base in zip(full, bare, strict=True)]
        )
        narrow = (slow_down.upper - slow_down.lower) / 2 <= precision * (1 + slow_down.value)
        if limit is not None:
            narrow = not slow_down.lower <= limit <= slow_down.upper
        return Overhead(
            slow_down=slow_down,
            hook=_interval(
                [with_program / base - 1 for with_program, base in zip(empty, bare, strict=True)]
            ),
            program=_interval(
                [
                    (with_program - e) / base
                    for with_program, e, base in zip(full, empty, bare, strict=True)
                ]
            ),
            consumer=consumer,
            seconds=median(bare),
            rounds=len(bare),
            sure=narrow and len(bare) >= LOOKS[0],
            instrument="exact" if is_exact() else "clock",
        )


def _shuffle(chance: random.Random) -> list[str]:
    return chance.sample(STATES, len(STATES))


def _interval(shares: Sequence[float]) -> Estimate:
    """Return the median; so strict that all looks together are wrong in 5 % at most."""
    return Estimate(*rank_interval(shares, 1 - (1 - CONFIDENCE) / (len(LOOKS) + 1)))
