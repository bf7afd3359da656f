"""Measuring what a workload costs, from its beginning to its end."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, TypedDict, overload

from pytest_bpf.costs.figures.figure import Figure, Instrument
from pytest_bpf.costs.figures.intervals import figure_of
from pytest_bpf.costs.figures.map_memory import map_memory
from pytest_bpf.costs.flow import EventFlow
from pytest_bpf.costs.instruments.consumer import Consumer
from pytest_bpf.costs.instruments.dispatcher import in_dispatcher
from pytest_bpf.costs.instruments.meter import Batch, Meter
from pytest_bpf.costs.map_speed import map_speed
from pytest_bpf.costs.run import per_run
from pytest_bpf.costs.workload import Costs, MapCosts, ProgramCosts
from pytest_bpf.errors import BpfError, NotMeasuredError, UnavailableError
from pytest_bpf.errors.arguments import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self, Unpack

    from pytest_bpf.costs.instruments.consumer import Consuming
    from pytest_bpf.objects import Map, Object, Program, VerifierStats

ROUNDS = 30
"""How often a workload is run, unless it is said."""


class Span:
    """What ``obj`` costs from the beginning of the ``with`` to its end; `costs` has it afterwards.

    ``consumer`` is the process or the thread that consumes the events. ``lost`` names the global
    variable, or by map the variables, in which the programs count the events that found no room:
    the kernel counts none for a ring buffer. ``latency`` names the member, or by map the members,
    into which the programs put `latency`'s stamp; the latency of the events that are read in the
    block is measured too. ``speed`` names the maps whose look-up and update are measured after the
    block (`map_speed`).

    The block is one batch; `batch` ends a batch inside it, and several batches give the times an
    interval. Raises `BpfError` for a consumer that does not run, `UnavailableError` where the
    kernel has no statistics, or should count exactly and does not.
    """

    def __init__(
        self,
        obj: Object,
        *,
        consumer: Consuming | None = None,
        lost: str | dict[str, str] | None = None,
        latency: str | dict[str, str] | None = None,
        speed: Iterable[str] = (),
    ) -> None:
        self._obj = obj
        self._consumer = Consumer.find(consumer) if consumer is not None else None
        self._flow = EventFlow(obj, lost, latency)
        self._speed = {name: obj.maps[name] for name in speed}
        cpu_seconds = self._consumer.cpu_seconds if self._consumer else lambda: 0.0
        self._meter = Meter(obj.programs, cpu_seconds)
        self._stack = ExitStack()
        self._costs: Costs | None = None

    @property
    def costs(self) -> Costs:
        """What it cost; `BpfError` before the end."""
        if self._costs is None:
            raise BpfError("the costs are known at the end of the 'with' that measures them")
        return self._costs

    def figures(self) -> tuple[Figure, ...]:
        """Return the figures of its costs."""
        return self.costs.figures()

    def batch(self) -> None:
        """End a batch here."""
        self._meter.end()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._meter)
            stack.enter_context(self._flow.begin())
            self._meter.begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                if not self._meter.batches:
                    self.batch()
                self._costs = self._result()

    def _result(self) -> Costs:
        meter, obj = self._meter, self._obj
        seconds = sum(batch.seconds for batch in meter.batches)
        programs = {name: self._program(program) for name, program in obj.programs.items()}
        maps = {name: self._map(bpf_map) for name, bpf_map in obj.maps.items()}
        memory = sum(costs.memory for costs in programs.values())
        memory += sum(costs.memory.total for costs in maps.values() if costs.memory)
        memory += self._consumer.memory() if self._consumer else 0
        unknown = next((costs.why_not for costs in maps.values() if costs.memory is None), None)
        return Costs(
            seconds=seconds,
            rounds=len(meter.batches),
            programs=programs,
            maps=maps,
            events=self._flow.end(seconds),
            cpu=self._share("", lambda batch: batch.consumer * 1e9 + self._all(batch)),
            memory=(
                Figure.certain("memory", "", memory, "kernel")
                if unknown is None
                else Figure.missing("memory", "", unknown, "kernel")
            ),
        )

    def _program(self, program: Program) -> ProgramCosts:
        runs = [batch.programs[program.name] for batch in self._meter.batches]
        subject = f"prog {program.name}"
        return ProgramCosts(
            program=program.name,
            run_cnt=sum(each.runs for each in runs),
            missed=sum(each.missed for each in runs),
            per_run=per_run(self._meter, program),
            cpu=self._share(subject, lambda batch: self._time(program, batch)),
            verified_insns=program.verified_insns,
            verifier=_verifier(program),
            prog_size_jited=program.prog_size_jited,
            memory=program.memlock + program.prog_size_jited,
        )

    def _map(self, bpf_map: Map) -> MapCosts:
        speed = map_speed(bpf_map) if bpf_map.name in self._speed else None
        try:
            return MapCosts(bpf_map.name, map_memory(bpf_map), speed=speed)
        except UnavailableError as error:
            return MapCosts(bpf_map.name, None, str(error), speed)

    def _time(self, program: Program, batch: Batch) -> float:
        """Return the ns that a program ran in a batch, without what measuring adds."""
        runs = batch.programs[program.name]
        empty = self._meter.empty_of(program) or 0.0
        return max(0.0, runs.run_time_ns - runs.runs * empty)

    def _all(self, batch: Batch) -> float:
        return sum(self._time(program, batch) for program in self._meter.programs.values())

    def _share(self, subject: str, cpu_seconds: Callable[[Batch], float]) -> Figure:
        how: Instrument = "exact" if self._meter.instrument.exact else "clock"
        shares = [cpu_seconds(batch) / (batch.seconds * 1e9) for batch in self._meter.batches]
        reference = [] if how == "exact" else [batch.reference for batch in self._meter.batches]
        return figure_of("cpu", subject, shares, how, reference)


class Wishes(TypedDict, total=False):
    """What a `Span` takes besides the object."""

    consumer: Consuming | None
    lost: str | dict[str, str] | None
    latency: str | dict[str, str] | None
    speed: Iterable[str]


@overload
def costs_of(
    obj: Object, workload: None = None, *, rounds: int = ROUNDS, **wishes: Unpack[Wishes]
) -> Span: ...


@overload
def costs_of(
    obj: Object,
    workload: Callable[[], object],
    *,
    rounds: int = ROUNDS,
    **wishes: Unpack[Wishes],
) -> Costs: ...


@checked
def costs_of(
    obj: Object,
    workload: Callable[[], object] | None = None,
    *,
    rounds: int = ROUNDS,
    **wishes: Unpack[Wishes],
) -> Span | Costs:
    """Measure what ``obj`` costs while ``workload`` runs: once to warm up, then ``rounds`` times.

    Without a workload it is a `Span`: ``with costs_of(obj) as span: ...``, then ``span.costs``. The
    programs are measured as they are attached. Let a round make about a hundred runs. ``consumer``,
    ``lost``, ``latency`` and ``speed`` are explained at `Span`.
    """
    span = Span(obj, **wishes)
    if workload is None:
        return span
    if rounds < 1:
        raise BpfError(f"measuring takes one round at least: {rounds=}")
    with in_dispatcher(obj.programs.values()):
        workload()
        with span:
            span._meter.begin_when_quiet()  # noqa: SLF001 (here the workload is at our disposal)
            for _ in range(rounds):
                workload()
                span.batch()
    return span.costs


class MeasureCosts(Protocol):
    """What `costs_of` is; the fixture ``bpf_costs`` gives it."""

    @overload
    def __call__(
        self, obj: Object, workload: None = None, *, rounds: int = ROUNDS, **wishes: Unpack[Wishes]
    ) -> Span: ...

    @overload
    def __call__(
        self,
        obj: Object,
        workload: Callable[[], object],
        *,
        rounds: int = ROUNDS,
        **wishes: Unpack[Wishes],
    ) -> Costs: ...


def _verifier(program: Program) -> VerifierStats | None:
    """Return the verifier's counts, None for a program that another process loaded."""
    try:
        return program.verifier
    except NotMeasuredError:
        return None
