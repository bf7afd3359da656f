"""Limits on what programs and maps may cost: as they are written, and which of them hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pytest_bpf.budgets.quantity import QuantityError, format_value, parse_quantity
from pytest_bpf.costs.figures.figure import METRICS, Metric
from pytest_bpf.errors import BpfError, near_matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Profile = Mapping[str, tuple[str | None, str | None]]
    """Pairs (target, alarm) by metric."""

Origin = Literal["marker", "command line", "ini", "test"]
"""Who set a limit. Those of a marker and of a test demand that the figure is measured; those of
the command line and of the ini file, which are for all tests, judge it where it is."""

GUIDE: Profile = {
    "cpu": ("2%", "5%"),
    "memory": ("200MB", "500MB"),
    "loss": ("0.1%", None),
    "latency_p99": ("100us", None),
    "lookup": ("100ns", None),
    "update": ("200ns", None),
}
"""The profile ``guide``: targets, and alarms where it has any."""

AGENT: Profile = {
    "cpu": (None, "2%"),
    "memory": (None, "200MB"),
    "loss": (None, "0.1%"),
    "latency_p99": (None, "100us"),
}
"""The profile ``agent``: the guide's targets that a whole agent can have, as limits."""

PROFILES = {"guide": GUIDE, "agent": AGENT}

MAY_BE_ZERO = frozenset({"run_cnt", "missed", "cpu", "overhead", "loss", "events", "stack_depth"})
"""Metrics of which nothing at all is possible."""


class LimitError(BpfError, ValueError):
    """A limit that cannot be understood or kept: a mistake in the test, never a verdict."""


@dataclass(frozen=True)
class Limit:
    """A limit on ``metric``: beyond ``target`` is a warning, beyond ``alarm`` a failure.

    Both are in the metric's unit, None where there is none. ``subject`` is as in `Figure`; empty
    it means whatever has that metric. A metric of which more is better is bounded from below.
    """

    metric: str
    subject: str
    target: float | None
    alarm: float | None
    origin: Origin

    @property
    def mandatory(self) -> bool:
        """Whether the figure must be there to be judged."""
        return self.origin in ("marker", "test")

    def __str__(self) -> str:
        unit = METRICS[self.metric].unit
        parts = [
            f"{prefix}{format_value(value, unit)}"
            for prefix, value in (("target ", self.target), ("", self.alarm))
            if value is not None
        ]
        return f"{self.metric} {', '.join(parts)}"


def parse(args: Iterable[object], kwargs: Mapping[str, Any], origin: Origin) -> list[Limit]:
    """Return the limits of one marker or call: names of profiles, then ``metric=limit``.

    ``program="count"`` or ``map="stats"`` says whose they are. A limit is a figure in the metric's
    unit (``"150ns"``), or a pair (target, alarm). Nothing at all is no limit: such a test is
    compared with the baseline alone. Raises `LimitError`.
    """
    limits: list[Limit] = []
    options = dict(kwargs)
    subject = _subject(options)
    for name in args:
        if not isinstance(name, str) or name not in PROFILES:
            hint = near_matches(str(name), PROFILES)
            raise LimitError(f"there is no budget profile {name!r}{hint}; limits are keywords")
        limits += [_limit(metric, pair, subject, origin) for metric, pair in PROFILES[name].items()]
    for metric, value in options.items():
        limits.append(_limit(metric, value, subject, origin))
    if not limits and (args or kwargs):
        raise LimitError(f"a budget without a limit{near_matches('', METRICS)}")
    return list({(limit.metric, limit.subject): limit for limit in limits}.values())


def parse_line(line: str, origin: Origin) -> list[Limit]:
    """Return the limits of a line of the ini file or the command line.

    A profile's name, or ``"run_time = 150ns"``, or a pair: ``"cpu = 2%, 5%"``. Raises `LimitError`.
    """
    name, equals, text = (part.strip() for part in line.partition("="))
    if not equals:
        return parse([name], {}, origin)
    values = [value.strip() for value in text.split(", ")]
    return parse([], {name: values[0] if len(values) == 1 else tuple(values)}, origin)


def resolve(limits: Iterable[Limit]) -> list[Limit]:
    """Return the first of each metric and subject: let those that go before others come first."""
    first: dict[tuple[str, str], Limit] = {}
    for limit in limits:
        first.setdefault((limit.metric, limit.subject), limit)
    return list(first.values())


def _subject(options: dict[str, Any]) -> str:
    subjects = {kind: options.pop(kind) for kind in ("program", "map") if kind in options}
    if len(subjects) > 1:
        raise LimitError("a budget is for a program or a map, not for both: write two")
    for kind, name in subjects.items():
        if not isinstance(name, str) or not name:
            raise LimitError(f"{kind}={name!r}: a budget's {kind} is its name")
        return f"{'prog' if kind == 'program' else kind} {name}"
    return ""


def _limit(name: str, text: object, subject: str, origin: Origin) -> Limit:
    if name not in METRICS:
        hint = near_matches(name, [*METRICS, "program", "map"])
        raise LimitError(f"there is no metric {name!r} to limit{hint}")
    metric = METRICS[name]
    pair = text if isinstance(text, (tuple, list)) else (None, text)
    if len(pair) != 2 or pair == (None, None):
        raise LimitError(f"{name}={text!r}: a limit is a figure, or a pair: (target, alarm)")
    target, alarm = (None if part is None else _figure(metric, part) for part in pair)
    if target is not None and alarm is not None and _worse(metric, target, alarm):
        raise LimitError(
            f"{name}={text!r}: the target {format_value(target, metric.unit)} would be missed only "
            f"after the alarm {format_value(alarm, metric.unit)}: write (target, alarm)"
        )
    return Limit(name, subject, target, alarm, origin)


def _figure(metric: Metric, text: object) -> float:
    try:
        value = parse_quantity(text, metric.unit)
    except QuantityError as error:
        raise LimitError(f"{metric.name}: {error}") from None
    if not value and metric.better == "higher":
        raise LimitError(f"{metric.name}={text!r} says nothing: every figure is that much")
    if not value and metric.name not in MAY_BE_ZERO:
        raise LimitError(f"{metric.name}={text!r} is below every figure: give more than 0")
    if metric.name == "loss" and value >= 1:
        raise LimitError(f"loss={text!r} says nothing: no more than all can be lost")
    return value


def _worse(metric: Metric, value: float, than: float) -> bool:
    return value > than if metric.better == "lower" else value < than
