"""What all tests need: small programs loaded, and the usual signals."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_bpf.cache import open_cache
from pytest_bpf.compile import CompileOptions
from pytest_bpf.errors import UnavailableError
from pytest_bpf.loader import Loader
from tests.browser import browser_fixture  # noqa: F401 (a fixture)
from tests.privilege import mark_unit_tests, skip_without_privilege
from tests.sessions import OF_WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.compile import Compiler
    from pytest_bpf.kernels.kernel import Kernel
    from pytest_bpf.objects import Object

collect_ignore = ["coverage_project", "downstream"]
"""Repositories of their own; `tests.test_downstream` and `test_coverage_plugin` run their tests."""

HEADER = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
"""


def pytest_configure(config: pytest.Config) -> None:
    """Give the signals that end a process their usual meaning, here and in all child processes.

    A background job and nohup ignore some of them, and what is ignored is inherited.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    config.addinivalue_line("markers", "unit: a test that an ordinary user can run, in seconds.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_unit_tests(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    skip_without_privilege(item)


class Load(Protocol):
    """What the fixture ``load`` is."""

    def __call__(
        self, text: str, *, compiler: Compiler | None = None, **options: Any
    ) -> Object: ...


def _loading() -> Iterator[Load]:
    with ExitStack() as loaders:

        def load(text: str, *, compiler: Compiler | None = None, **options: Any) -> Object:
            loader = loaders.enter_context(
                Loader(compile_options=lambda _: CompileOptions(compiler))
            )
            return loader.load(HEADER + text, **options)

        yield load


@pytest.fixture
def load() -> Iterator[Load]:
    """Load C text that begins where the usual includes and the license end."""
    yield from _loading()


@pytest.fixture(scope="module")
def load_once() -> Iterator[Load]:
    """The same for a whole module."""
    yield from _loading()


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """The distribution's stock kernel, or a skip that says what is missing."""
    from pytest_bpf.kernels import lookup
    from pytest_bpf.vm import qemu

    try:
        qemu.program()
        stock = lookup.find("debian")
    except UnavailableError as error:
        pytest.skip(str(error))
    assert stock is not None
    return stock


@pytest.fixture(scope="session")
def release(kernel: Kernel) -> str:
    """The release of that kernel, for sessions on several ones."""
    pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    return kernel.release


@pytest.fixture
def own_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of a test are no workers, and use the user's cache: pytester gives another home."""
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(open_cache().folder))
    for variable in OF_WORKERS:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def session(pytester: pytest.Pytester, own_session: None) -> pytest.Pytester:  # noqa: ARG001
    """A project for sessions on several kernels; `run_with_machines` runs them."""
    return pytester
