"""Puts the kernel into the tests' names: ``test_x[6.1.0-56-amd64]``."""

from __future__ import annotations

from typing import cast

import pytest

FIXTURE = "_bpf_kernel"

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say the kernel in each report, and so in JUnit's."""
    names = config.stash[NAMES]
    if len(names) == 1:
        for item in items:
            item.user_properties.append(("bpf_kernel", names[0]))


def without(nodeid: str, kernel: str) -> str:
    """Return a node id without the kernel's name.

    >>> without("a.py::test_x[1-6.1.0]", "6.1.0"), without("a.py::test_x[6.1.0]", "6.1.0")
    ('a.py::test_x[1]', 'a.py::test_x')
    """
    if nodeid.endswith(f"-{kernel}]"):
        return nodeid.removesuffix(f"-{kernel}]") + "]"
    return nodeid.removesuffix(f"[{kernel}]")
