"""Puts the kernel into the tests' names: ``test_x[6.1.0-56-amd64]``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

FIXTURE = "_bpf_kernel"

NAMES_FILES = frozenset({"snapshot"})
"""Fixtures that name after the test what they keep for later sessions: syrupy's."""

NAMES = pytest.StashKey[list[str]]()
"""The kernels whose tests this process names: a worker's own, or all when it only collects."""


@pytest.fixture(scope="session", autouse=True)
def _bpf_kernel(request: pytest.FixtureRequest) -> str | None:
    """The name of the kernel, which is a part of the test's."""
    return cast("str | None", getattr(request, "param", None))


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name each test after the kernel as well."""
    if FIXTURE in metafunc.fixturenames:
        names = metafunc.config.stash[NAMES]
        metafunc.parametrize(FIXTURE, names, ids=names, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Let what is kept for later be the same on all kernels: `NAMES_FILES` see a plain name."""
    node, names = request.node, request.config.stash[NAMES]
    name = node.name
    if request.fixturename in NAMES_FILES and len(names) == 1:
        node.name = strip_kernel(name, names[0])
    try:
        return (yield)
    finally:
        node.name = name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say the kernel in each report, and so in JUnit's."""
    names = config.stash[NAMES]
    if len(names) == 1:
        for item in items:
            item.user_properties.append(("bpf_kernel", names[0]))


def select(argument: str, kernels: Sequence[str], session: Sequence[str]) -> list[str]:
    """Return what an argument of the command line selects among tests that are named by kernel.

    ``kernels`` are those whose tests are named here, ``session`` all of the session. An id without
    a kernel stands for every kernel, and the beginning of a version behind it for those kernels.

    >>> session = ["6.1.0", "6.12.9", "host"]
    >>> select("a.py::test_x[0]", ["6.1.0", "host"], session)
    ['a.py::test_x[0-6.1.0]', 'a.py::test_x[0-host]']
    >>> select("a.py::test_x[0][6.1]", session, session)
    ['a.py::test_x[0-6.1.0]']
    >>> select("a.py::test_x[0-6.1.0]", ["host"], session), select("a.py", ["host"], session)
    ([], ['a.py'])
    """
    if "::" not in argument or not argument.endswith("]"):
        return [argument]
    for kernel in session:
        if argument.endswith((f"-{kernel}]", f"::{_function(argument)}[{kernel}]")):
            return [argument] if kernel in kernels else []
    test, separator, version = argument[:-1].rpartition("][")
    if separator and any(_begins(kernel, version) for kernel in session):
        return [f"{test}-{kernel}]" for kernel in kernels if _begins(kernel, version)]
    return [f"{argument[:-1]}-{kernel}]" for kernel in kernels]


def _function(argument: str) -> str:
    return argument.rpartition("::")[2].partition("[")[0]


def _begins(kernel: str, version: str) -> bool:
    """Say whether a kernel has this version, as far as it is given: 6.1.0 has 6.1, 6.12 has not."""
    return re.match(rf"{re.escape(version)}(?!\d)", kernel) is not None


def strip_kernel(nodeid: str, kernel: str) -> str:
    """Return a node id without the kernel's name.

    >>> strip_kernel("a.py::test_x[1-6.1.0]", "6.1.0"), strip_kernel("a.py::test_x[6.1.0]", "6.1.0")
    ('a.py::test_x[1]', 'a.py::test_x')
    """
    if nodeid.endswith(f"-{kernel}]"):
        return nodeid.removesuffix(f"-{kernel}]") + "]"
    return nodeid.removesuffix(f"[{kernel}]")


def strip_kernel_in_snapshots(report: dict[str, Any], kernel: str) -> None:
    """Let a worker's report of snapshots (syrupy's) have the names that the snapshots have.

    Syrupy keeps the tests that one worker collected, and those that any worker selected: with a
    kernel in the names, those of other kernels would be missing.
    """
    if isinstance(report.get("collected"), bytes):
        from syrupy.utils import decompress_json

        report["collected"] = decompress_json(report["collected"])
    for item in report.get("collected", ()):
        item.update({key: strip_kernel(item[key], kernel) for key in ("nodeid", "name")})
    selected = report.get("selected", {})
    report["selected"] = {strip_kernel(test, kernel): how for test, how in selected.items()}
