"""A time that got worse is believed when another load of the same says so too.

See `pytest_bpf.budgets.change`: a load may have bad luck with its memory for all of its life.
And a baseline of a disturbed machine would decide nothing ever after: it is measured again, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.budgets.change import ATTEMPTS, Samples, combine, is_too_disturbed
from pytest_bpf.budgets.compare import Better, Comparison, Same, Uncertain, Worse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf.budgets.change import Outcome
    from pytest_bpf.budgets.findings import Finding
    from pytest_bpf.costs.figures.figure import Figure

OUTCOMES: dict[type, Outcome] = {
    Worse: "slower",
    Better: "faster",
    Same: "same",
    Uncertain: "inconclusive",
}


def needs_confirmation(finding: Finding) -> bool:
    """Say whether another load may find otherwise: of times, when it got worse, or may have."""
    if not isinstance(finding, (Worse, Uncertain)):
        return False
    return finding.figure.instrument == "clock" and bool(finding.figure.reference)


def is_disturbed(figure: Figure) -> bool:
    """Say whether a time is one of a disturbed run, of which no baseline is made."""
    return figure.instrument == "clock" and is_too_disturbed(
        Samples(figure.samples, figure.reference)
    )


def same_as_before(finding: Finding) -> Finding:
    """Return what is found of a figure whose programs and maps are the same as before.

    Its time is, too: what else may have come out says something about the machine alone.
    """
    if not isinstance(finding, Comparison) or not finding.figure.reference:
        return finding
    about = (finding.metric, finding.subject, finding.before, finding.figure, finding.allowed)
    return Same(*about)


def settle(loads: Sequence[Finding]) -> Finding | None:
    """Return what the loads of a test, the last one last, say together of one of its figures.

    None while another load is needed. One of them that says it stands for all.
    """
    outcome = combine([OUTCOMES[type(each)] for each in loads])
    if outcome is None:
        return None
    if outcome != "inconclusive":
        return next(each for each in reversed(loads) if OUTCOMES[type(each)] == outcome)
    last = loads[-1]
    if isinstance(last, Worse):
        about = (last.metric, last.subject, last.before, last.figure, last.allowed)
        return Uncertain(*about, f"{ATTEMPTS} loads do not agree")
    return last
