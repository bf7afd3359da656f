"""Hooks that other plugins and ``conftest.py`` files may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from pytest_bpf.compile import Compiler
    from pytest_bpf.objects import Object


@pytest.hookspec(firstresult=True)
def pytest_bpf_compiler(
    config: pytest.Config, source: str | os.PathLike[str]
) -> Compiler | str | None:
    """Choose the compiler of a source: a path, a name, or a `pytest_bpf.Compiler`.

    The first answer that is not None counts; ``--bpf-cc`` and the search come after.
    """


@pytest.hookspec
def pytest_bpf_cflags(
    config: pytest.Config, source: str | os.PathLike[str]
) -> Sequence[str] | None:
    """Add compiler flags for a source; all answers are joined, after those of the ini file."""


@pytest.hookspec
def pytest_bpf_object_loaded(request: pytest.FixtureRequest, obj: Object) -> None:
    """Called when a test or fixture has loaded an object, before it uses it."""


@pytest.hookspec
def pytest_bpf_workloads(
    config: pytest.Config,
) -> Mapping[str, Callable[[int], int | None]] | None:
    """Add workloads to ``bpf_syscalls.run(name, count)``.

    Each takes a count, does its work that many times, and may return how often it failed.
    """
