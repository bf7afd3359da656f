"""What a cost is called, what it is counted in, and one figure of it.

Everything that was measured goes on as figures: a budget judges them, a baseline keeps them, a
report prints them, and none of the three has to know where a figure came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["count", "ns", "instructions", "B", "share", "1/s"]
"""``share`` is a fraction: 0.02 is 2 %."""

Instrument = Literal["verifier", "kernel", "clock", "exact"]
"""``verifier`` and ``kernel`` tell what is so, each time the same; ``clock`` is a time of this
machine, with its noise; ``exact`` is a count of guest instructions."""


NEVER_RAN = "never ran"
"""`Figure.why_not` of what a program that made no run would have cost."""


@dataclass(frozen=True)
class Metric:
    """What can be measured: a name that is unique, the unit of its figures, and which is better."""

    name: str
    unit: Unit
    better: Literal["lower", "higher"]
    meaning: str


@dataclass(frozen=True)
class Figure:
    """One figure: ``metric`` (a key of `METRICS`) of ``subject`` (``"prog NAME"``, ``"map NAME"``).

    ``subject`` is empty for a workload as a whole. Between ``lower`` and ``upper`` lies the true
    value with 95 % confidence; both equal ``value`` for an exact figure. ``samples`` are the
    batches, in the order they were measured, to be compared with those of another run, and
    ``value`` is their median. ``reference``, where there is one, is what a fixed program read right
    beside each of them, in ns: it tells those in which the machine was disturbed, and ``value`` is
    the lower decile of the others. ``lower`` and ``upper`` are None where one batch says nothing of
    its spread. ``value`` is None for what could not be measured, and ``why_not`` says why.
    """

    metric: str
    subject: str
    value: float | None
    lower: float | None
    upper: float | None
    instrument: Instrument
    samples: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    why_not: str = ""

    @classmethod
    def certain(cls, metric: str, subject: str, value: float, instrument: Instrument) -> Figure:
        """Return a figure that is the same each time."""
        return cls(metric, subject, value, value, value, instrument)

    @classmethod
    def missing(cls, metric: str, subject: str, why_not: str, instrument: Instrument) -> Figure:
        """Return the figure of what could not be measured: "no kprobe on this kernel"."""
        return cls(metric, subject, None, None, None, instrument, why_not=why_not)


_METRICS = (
    Metric("verified_insns", "count", "lower", "instructions the verifier processed"),
    Metric("total_states", "count", "lower", "states the verifier explored"),
    Metric("peak_states", "count", "lower", "states the verifier held at once"),
    Metric("stack_depth", "B", "lower", "stack of the program and its functions"),
    Metric("prog_size_jited", "B", "lower", "machine code of the program"),
    Metric("run_cnt", "count", "lower", "runs of the program"),
    Metric("run_time", "ns", "lower", "time of one run, less that of an empty program"),
    Metric("instructions", "instructions", "lower", "the same in exact mode"),
    Metric("missed", "count", "lower", "runs the kernel left out (recursion_misses)"),
    Metric("cpu", "share", "lower", "share of one CPU that programs and consumers took"),
    Metric("overhead", "share", "lower", "slow-down of the workload"),
    Metric("overhead_hook", "share", "lower", "the same with an empty program on the hook"),
    Metric("overhead_program", "share", "lower", "what the program adds to that"),
    Metric("overhead_consumer", "share", "lower", "CPU time of the consumer, of the workload's"),
    Metric("memory", "B", "lower", "maps, programs, rings in user space, and the agent's own"),
    Metric("map_memory", "B", "lower", "memory of a map"),
    Metric("events", "count", "higher", "events that were generated"),
    Metric("loss", "share", "lower", "events that were generated and not delivered"),
    Metric("events_per_second", "1/s", "higher", "events delivered a second"),
    Metric("latency_p50", "ns", "lower", "from an event to its consumer, median"),
    Metric("latency_p95", "ns", "lower", "the same, 95th percentile"),
    Metric("latency_p99", "ns", "lower", "the same, 99th percentile"),
    Metric("latency_max", "ns", "lower", "the same, the longest"),
    Metric("consumer_p99", "ns", "lower", "the part of it in which the consumer did not sleep"),
    Metric("lookup", "ns", "lower", "one look-up in a map, from BPF"),
    Metric("update", "ns", "lower", "one update of a map, from BPF"),
    Metric("lookup_instructions", "instructions", "lower", "one look-up in exact mode"),
    Metric("update_instructions", "instructions", "lower", "one update in exact mode"),
)

METRICS = {metric.name: metric for metric in _METRICS}
