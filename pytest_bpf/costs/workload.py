"""What a workload cost: its programs, their maps and events, and all of it together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.costs.figures.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_bpf.costs.figures.map_memory import MapMemory
    from pytest_bpf.costs.latency import Latency
    from pytest_bpf.costs.map_speed import MapSpeed
    from pytest_bpf.objects import VerifierStats


@dataclass(frozen=True)
class ProgramCosts:
    """What one program cost.

    ``run_cnt`` runs were counted and ``missed`` left out by the kernel (``recursion_misses``);
    ``per_run`` is the figure ``run_time`` in ns, in exact mode ``instructions``, less what an
    empty program takes; ``cpu`` the share of one CPU that all runs took. ``memory`` and
    ``prog_size_jited`` are in bytes; ``verifier`` has the verifier's counts, None
    for a program that another process loaded.
    """

    program: str
    run_cnt: int
    missed: int
    per_run: Figure
    cpu: Figure
    verified_insns: int
    verifier: VerifierStats | None
    prog_size_jited: int
    memory: int

    def figures(self) -> tuple[Figure, ...]:
        """Return everything as figures of ``"prog NAME"``."""
        subject = f"prog {self.program}"
        certain = (
            Figure.certain("verified_insns", subject, self.verified_insns, "verifier"),
            *self._verifier_figures(subject),
            Figure.certain("prog_size_jited", subject, self.prog_size_jited, "kernel"),
            Figure.certain("memory", subject, self.memory, "kernel"),
            Figure.certain("run_cnt", subject, self.run_cnt, "kernel"),
            Figure.certain("missed", subject, self.missed, "kernel"),
        )
        return (*certain, self.per_run, self.cpu)

    def _verifier_figures(self, subject: str) -> Iterator[Figure]:
        for metric in ("total_states", "peak_states", "stack_depth"):
            if self.verifier is None:
                yield Figure.missing(metric, subject, "another process loaded it", "verifier")
            else:
                yield Figure.certain(metric, subject, getattr(self.verifier, metric), "verifier")


@dataclass(frozen=True)
class MapCosts:
    """What one map took: ``memory``, None where it cannot be told, and ``why_not`` then.

    ``speed`` is how long a look-up and an update take, where that was asked for.
    """

    map: str
    memory: MapMemory | None
    why_not: str = ""
    speed: MapSpeed | None = None

    def figures(self) -> tuple[Figure, ...]:
        """Return the figure ``map_memory`` of ``"map NAME"``, and those of ``speed``."""
        subject = f"map {self.map}"
        speed = self.speed.figures() if self.speed else ()
        if self.memory is None:
            return (Figure.missing("map_memory", subject, self.why_not, "kernel"), *speed)
        return (Figure.certain("map_memory", subject, self.memory.total, "kernel"), *speed)


@dataclass(frozen=True)
class EventCosts:
    """What happened to the events of one ring or perf buffer in ``seconds``.

    ``generated`` is ``delivered`` and ``lost`` and what is still ``pending``. ``lost``, and so
    ``generated``, is None where nobody counted them, and ``why_not`` says why. ``latency`` is that
    of the events that were delivered, where it was asked for and there were some.
    """

    map: str
    seconds: float
    delivered: int
    pending: int
    lost: int | None
    why_not: str = ""
    latency: Latency | None = None

    @property
    def generated(self) -> int | None:
        """How many events the programs put out, or tried to."""
        return None if self.lost is None else self.delivered + self.pending + self.lost

    @property
    def loss(self) -> float | None:
        """The share of them that was lost; 0 when there was none."""
        if self.lost is None or self.generated is None:
            return None
        return self.lost / self.generated if self.generated else 0.0

    def figures(self) -> tuple[Figure, ...]:
        """Return ``events``, ``loss``, ``events_per_second``, and the latency's, of a map."""
        subject, rate = f"map {self.map}", self.delivered / self.seconds
        figures = [Figure("events_per_second", subject, rate, None, None, "clock")]
        figures += self.latency.figures(subject) if self.latency else ()
        if self.generated is None or self.loss is None:
            return (
                Figure.missing("events", subject, self.why_not, "kernel"),
                Figure.missing("loss", subject, self.why_not, "kernel"),
                *figures,
            )
        return (
            Figure.certain("events", subject, self.generated, "kernel"),
            Figure.certain("loss", subject, self.loss, "kernel"),
            *figures,
        )


@dataclass(frozen=True)
class Costs:
    """What a workload of ``seconds`` cost, in ``rounds`` rounds.

    ``cpu`` is the share of one CPU that the programs and the consumer took together, ``memory``
    the bytes of programs, maps, rings in user space and the consumer.
    """

    seconds: float
    rounds: int
    programs: Mapping[str, ProgramCosts]
    maps: Mapping[str, MapCosts]
    events: Mapping[str, EventCosts]
    cpu: Figure
    memory: Figure

    def figures(self) -> tuple[Figure, ...]:
        """Return all figures, the programs' first, those of the whole last."""
        parts: list[ProgramCosts | MapCosts | EventCosts] = [*self.programs.values()]
        parts += [*self.maps.values(), *self.events.values()]
        return (*(figure for part in parts for figure in part.figures()), self.cpu, self.memory)
