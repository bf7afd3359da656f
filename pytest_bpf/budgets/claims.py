"""What somebody claims of a program, and what measuring makes of it: the marker, the fixture.

.. code-block:: python

    @pytest.mark.bpf_claim("one look-up is cheaper than two", row=1, verdict="holds")
    def test_one_look_up_is_cheaper(bpf_claim, ...):
        bpf_claim(after.per_run <= 0.75 * before.per_run, before=before, after=after)

The marker says what is claimed and what has been found so far; so a test that cannot run leaves a
line that says "not measured", and why. The fixture takes what was found now: when that is another
verdict than the marker's, the test fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from pytest_bpf.costs.figures.figure import METRICS, Figure
from pytest_bpf.costs.run import RunCost
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys.exact import is_exact
from pytest_bpf.kernel.sys.release import release

ClaimVerdict = Literal["holds", "holds in part", "refuted", "not measured"]

Measurable = RunCost | Figure | float
"""What can be compared: with a unit of its own, or a bare number."""


class ClaimError(BpfError, ValueError):
    """A ``bpf_claim`` that cannot be understood: a mistake in the test."""


@dataclass(frozen=True)
class Claim:
    """A claim, and what one test on one kernel made of it.

    ``expected`` is the verdict of the marker, None where it depends on the machine; ``verdict`` is
    the one of this run, or "not measured".
    ``measured`` is for the eye: the figures, or why there are none. ``before`` and ``after`` are
    in ``unit``; ``ratio`` is ``after / before``. ``where`` is the kernel's release, and whether its
    time is a count of instructions.
    """

    says: str
    row: int | None = None
    expected: ClaimVerdict | None = "holds"
    verdict: ClaimVerdict = "not measured"
    measured: str = ""
    before: float | None = None
    after: float | None = None
    unit: str = ""
    where: str = ""

    @property
    def ratio(self) -> float | None:
        """What came after, as a multiple of what was before."""
        return self.after / self.before if self.before and self.after is not None else None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields and the ratio as plain values, as they travel between processes."""
        return {**asdict(self), "ratio": self.ratio}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Claim:
        """Return the claim of which these are the plain values; what else is there is ignored."""
        return cls(**{field.name: plain[field.name] for field in fields(cls)})


class ClaimCheck:
    """What the fixture ``bpf_claim`` gives: call it once with what was found."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    def __call__(
        self,
        holds: bool | Mapping[str, bool],
        measured: str = "",
        *,
        before: Measurable | None = None,
        after: Measurable | None = None,
        unit: str = "",
    ) -> None:
        """Say whether the claim holds, or which of its parts do, and the figures that show it.

        ``measured`` is added to what ``before`` and ``after`` say by themselves. Raises
        `AssertionError` when the verdict is another than the marker's.
        """
        __tracebackhide__ = True
        parts = holds if isinstance(holds, Mapping) else {"": holds}
        old, own_unit = _value(before)
        new, _ = _value(after)
        claim = replace(
            self.claim,
            verdict=combine_parts(parts),
            before=old,
            after=new,
            unit=unit or own_unit,
            where=where(),
        )
        texts = [comparison(claim), measured, *(f"not so: {part}" for part in _failing(parts))]
        self.claim = claim = replace(claim, measured="; ".join(filter(None, texts)))
        if not claim.measured:
            raise ClaimError("bpf_claim needs what was measured: before= and after=, or a text")
        if claim.expected not in (None, claim.verdict):
            raise AssertionError(
                f"the claim {claim.says!r} is {claim.verdict!r} here, and not {claim.expected!r}: "
                f"measured {claim.measured}"
            )


def combine_parts(parts: Mapping[str, bool]) -> ClaimVerdict:
    """Return what becomes of a claim when these of its parts hold.

    >>> combine_parts({"faster": True, "smaller": False})
    'holds in part'
    """
    outcomes = {bool(part) for part in parts.values()}
    return "holds in part" if len(outcomes) == 2 else "holds" if outcomes == {True} else "refuted"


def comparison(claim: Claim) -> str:
    """Return both figures and their ratio for the eye; empty without figures.

    >>> comparison(Claim("", before=374, after=222, unit="instructions"))
    '374 → 222 instructions (x 0.59)'
    """
    if claim.before is None or claim.after is None:
        return ""
    ratio = "" if claim.ratio is None else f" (x {claim.ratio:.2g})"
    return (
        f"{format_figure(claim.before)} → {format_figure(claim.after)} {claim.unit}".rstrip()
        + ratio
    )


def format_figure(value: float) -> str:
    """Return a number with three digits, or all of those before the point.

    >>> format_figure(153793.4), format_figure(13.25), format_figure(0.0312)
    ('153,793', '13.2', '0.0312')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def where() -> str:
    """Return what the figures of this process are true of."""
    return f"{release()} exact" if is_exact() else release()


def _value(measured: Measurable | None) -> tuple[float | None, str]:
    if isinstance(measured, RunCost):
        return measured.per_run, measured.unit
    if isinstance(measured, Figure):
        return measured.value, METRICS[measured.metric].unit
    return (None if measured is None else float(measured)), ""


def _failing(parts: Mapping[str, bool]) -> list[str]:
    """Return the parts that do not hold, when others do."""
    return [part for part, holds in parts.items() if part and not holds] if len(parts) > 1 else []
