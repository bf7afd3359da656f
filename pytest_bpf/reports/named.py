"""What a figure is called where there is one name for all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.budgets.results import Key, Results
    from pytest_bpf.costs.figure import Figure


def named(found: Results) -> Iterator[tuple[str, Key, Figure]]:
    """Yield test and subject as one name, with the kernel where there are several, and the figure.

    Only what was measured; the order is that of the keys.
    """
    several = len({key.environment.kernel for key in found.figures}) > 1
    for key, figure in sorted(found.figures.items()):
        if figure.value is not None:
            parts = [key.test, key.subject, f"kernel {key.environment.kernel}" if several else ""]
            yield ", ".join(part for part in parts if part), key, figure
