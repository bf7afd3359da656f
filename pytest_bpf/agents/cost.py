"""What a whole agent costs under a stated load."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_bpf.agents.buffers import open_buffers
from pytest_bpf.agents.measurement import count, lost
from pytest_bpf.agents.memory import memory
from pytest_bpf.agents.single_events import single_events
from pytest_bpf.costs.figures.figure import Figure
from pytest_bpf.costs.figures.intervals import mean_interval
from pytest_bpf.costs.latency import Delays
from pytest_bpf.errors import AgentError, UnavailableError
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.kernel.sys.exact import is_exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_bpf.agents.measurement import Conditions, Counts
    from pytest_bpf.agents.single_events import SingleEvent
    from pytest_bpf.agents.subject import Subject
    from pytest_bpf.costs.figures.figure import Instrument

SAMPLING = 0.4
"""Seconds for the delays of single events."""


@dataclass(frozen=True)
class AgentCost:
    """What an agent cost under a load of ``events`` in ``seconds``.

    ``cpu`` is the share of one CPU that it took: ``processes``, the part of its processes, and
    ``programs``, that of its programs, in whichever process they ran; ``runs`` is how often these
    ran. ``memory`` is in bytes: its processes', its maps' and programs', its buffers'. ``lost`` of
    the ``events`` were not delivered; both are None when that is not known. ``latency`` is how long
    it takes with one event, in ns, None when no single event made a program run. ``figures`` are
    the same as values that budgets judge.
    """

    agent: str
    events: int
    seconds: float
    runs: int
    cpu: float
    processes: float
    programs: float
    memory: int | None
    lost: float | None
    latency: Delays | None
    figures: tuple[Figure, ...]

    @property
    def loss(self) -> float | None:
        """The share of the events that was lost; None when that cannot be told."""
        return None if self.lost is None else self.lost / self.events

    def __str__(self) -> str:
        memory = "unknown" if self.memory is None else f"{self.memory / 1e6:.1f} MB"
        loss = "unknown" if self.loss is None else f"{self.loss:.3%}"
        p99 = "unknown" if self.latency is None else f"{self.latency.p99 / 1000:.1f} us"
        return (
            f"{self.agent}: {self.events} events in {self.seconds:.2f} s: CPU {self.cpu:.2%} "
            f"({self.processes:.2%} its processes, {self.programs:.2%} its programs), "
            f"memory {memory}, loss {loss}, P99 {p99}"
        )


def cost(agent: Subject, conditions: Conditions) -> AgentCost:
    """Measure an agent under load; see `Agent.under`.

    Raises `AgentError` when it has no program, or none that runs under this load.
    """
    if not agent.programs:
        raise AgentError(f"agent {agent.name!r} holds no program to be measured", agent.output)
    buffers, unseen = open_buffers(agent)
    try:
        counts = count(agent, conditions, buffers, unseen)
        used = _memory(agent)
        with statistics():
            singles = single_events(
                agent, buffers, conditions.load.make, samples=conditions.samples, seconds=SAMPLING
            )
    finally:
        for buffer in buffers:
            buffer.close()
    if not any(counts.runs.values()):
        raise AgentError(
            f"agent {agent.name!r}: none of its programs ({', '.join(counts.runs)}) ran under a "
            f"load of {conditions.load.count} events: is it the load that they wait for?",
            agent.output,
        )
    return _summary(agent, conditions.load.count, counts, used, singles)


def _memory(agent: Subject) -> Figure:
    try:
        return Figure.certain("memory", _subject(agent), memory(agent), "clock")
    except UnavailableError as error:
        return Figure.missing("memory", _subject(agent), str(error), "clock")


def _summary(
    agent: Subject, events: int, counts: Counts, used: Figure, singles: Sequence[SingleEvent]
) -> AgentCost:
    lost_events, why_not = lost(agent, events, counts, singles)
    delays = None
    if singles:
        import numpy as np  # noqa: PLC0415 (90 ms, and only for whoever measures)

        delays = Delays.summarize(np.array([single.ns for single in singles]))
    if lost_events is None:
        loss = Figure.missing("loss", _subject(agent), why_not, "kernel")
    else:
        loss = Figure.certain("loss", _subject(agent), lost_events / events, "kernel")
    cpu = _cpu(agent, counts)
    return AgentCost(
        agent=agent.name,
        events=events,
        seconds=sum(part.seconds for part in counts.slices),
        runs=sum(counts.runs.values()),
        cpu=cpu.value or 0.0,
        processes=fmean(part.processes for part in counts.slices),
        programs=fmean(part.programs for part in counts.slices),
        memory=None if used.value is None else int(used.value),
        lost=lost_events,
        latency=delays,
        figures=(cpu, used, loss, *_latencies(agent, delays), *_rest(agent, events)),
    )


def _clock() -> Instrument:
    return "exact" if is_exact() else "clock"


def _subject(agent: Subject) -> str:
    return f"agent {agent.name}"


def _cpu(agent: Subject, counts: Counts) -> Figure:
    """Return the mean over the slices: what is done once in a while counts too."""
    shares = [part.processes + part.programs for part in counts.slices]
    return Figure("cpu", _subject(agent), *mean_interval(shares), _clock(), tuple(shares))


def _rest(agent: Subject, events: int) -> Iterator[Figure]:
    yield Figure.certain("events", _subject(agent), events, "kernel")
    for name, program in agent.programs.items():
        yield Figure.certain("verified_insns", f"prog {name}", program.verified_insns, "verifier")


def _latencies(agent: Subject, delays: Delays | None) -> Iterator[Figure]:
    subject, used = _subject(agent), _clock()
    if delays is None:
        why_not = "no single event made one of its programs run"
        for name in ("latency_p50", "latency_p95", "latency_p99", "latency_max"):
            yield Figure.missing(name, subject, why_not, used)
        return
    for percent, bounds in zip((50, 95, 99), delays.bounds, strict=True):
        yield Figure(f"latency_p{percent}", subject, getattr(delays, f"p{percent}"), *bounds, used)
    yield Figure("latency_max", subject, delays.max, None, None, used)
