"""What users do with other plugins: a copy of this file is a project, one test for each plugin."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies

if TYPE_CHECKING:  # pragma: no cover
    from collections.abc import Callable

TRIES: list[int] = []
UNUSED: list[int] = []
ORDER: list[str] = []


def test_pytest_cov(request: pytest.FixtureRequest) -> None:
    """Its report says that both lines ran, each on another kernel."""
    if "host" in request.node.name:
        UNUSED.append(1)
    else:
        UNUSED.append(2)


def test_pytest_rerunfailures() -> None:
    """Workers ask the controller how often a test has run, on its loopback."""
    TRIES.append(1)
    assert len(TRIES) == 2


@pytest.mark.timeout(0.2)
@pytest.mark.xfail(raises=pytest.fail.Exception, strict=True)
def test_pytest_timeout() -> None:
    threading.Event().wait(60)


@pytest.mark.asyncio
async def test_pytest_asyncio() -> None:
    await asyncio.sleep(0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_anyio() -> None:
    from anyio import sleep

    await sleep(0)


@given(strategies.integers())
def test_hypothesis(number: int) -> None:
    from hypothesis.configuration import storage_directory

    assert storage_directory().path == Path.cwd() / ".hypothesis"
    assert number + 1 > number


def test_pytest_benchmark(benchmark: Callable[..., int]) -> None:
    assert benchmark(sum, [1, 2]) == 3


def test_pytest_html(extras: list[Any]) -> None:
    """It is in the report of the session, with what the test adds."""
    from pytest_html import extras as kinds

    extras.append(kinds.text("what the test adds"))


def test_syrupy(snapshot: object) -> None:
    assert snapshot == {"answer": 42}


@pytest.mark.order(2)
def test_pytest_order() -> None:
    ORDER.append("second")
    assert ORDER == ["first", "second"]


@pytest.mark.order(1)
def test_comes_first() -> None:
    ORDER.append("first")


def test_pytest_subtests(subtests: Any) -> None:
    for number in range(2):
        with subtests.test(number=number):
            assert number >= 0


def test_allure_pytest() -> None:
    """A file of the results has what it says."""
    import allure

    with allure.step("one step of the test"):
        pass


def test_pytest_randomly(request: pytest.FixtureRequest) -> None:
    """Workers have the seed of the controller."""
    assert request.config.getoption("randomly_seed") == 42
