"""Two writers and one reader: nothing lost, repeated or torn; here for two seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.loader import Loader
from tests.event_stress import SOURCE, stress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Object


@pytest.fixture(scope="module")
def obj() -> Iterator[Object]:
    with Loader() as loader:
        yield loader.load(SOURCE)


@pytest.mark.parametrize("options", [{}, {"every": 0.001}], ids=["woken", "looking"])
@pytest.mark.parametrize("kind", ["ring", "perf"])
def test_nothing_is_lost_repeated_or_torn(obj: Object, kind: str, options: dict[str, Any]) -> None:
    done = stress(obj, kind, 0.5, **options)
    assert done.events > 1000
    assert done.batches >= 2
    assert (done.discarded > 0) == (kind == "ring")


@pytest.mark.filterwarnings("ignore:variable 'sum' set but not used")
@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("payload[i] = x;", "a torn event"),
        ("e->sum = n;", "a torn sum"),
        ("writers[w].next = n + 1 + (n % 97 == 0);", "lost, repeated or moved"),
        ("writers[w].next = n + (n % 97 != 0 || i % 2);", "lost, repeated or moved"),
    ],
)
def test_what_is_wrong_is_seen(broken: str, sentence: str) -> None:
    """A program that writes wrong words, a wrong sum, leaves a number out, or writes one twice."""
    name = broken.partition("=")[0]
    begin = SOURCE.index(name)
    whole = SOURCE[begin : SOURCE.index(";", begin) + 1]
    with Loader() as loader:
        obj = loader.load(SOURCE.replace(whole, broken))
        with pytest.raises(AssertionError, match=sentence):
            stress(obj, "ring", 0.3)
