"""Loading small programs, for the tests of what is loaded."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_bpf.loader import Choices, Loader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.compile import Compiler
    from pytest_bpf.objects import Object

collect_ignore = ["downstream"]
"""A repository of its own; `tests.test_downstream` runs its tests."""

HEADER = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
"""


class Load(Protocol):
    """What the fixture ``load`` is."""

    def __call__(
        self, text: str, *, compiler: Compiler | None = None, **options: Any
    ) -> Object: ...


def _loading() -> Iterator[Load]:
    with ExitStack() as loaders:

        def load(text: str, *, compiler: Compiler | None = None, **options: Any) -> Object:
            loader = loaders.enter_context(Loader(choices=lambda _: Choices(compiler)))
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
