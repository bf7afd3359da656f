"""Settings about kernels and machines; `settings` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.plugin.options import MACHINE
from pytest_bpf.plugin.paths import words

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = 1024
"""MiB of a machine, when nothing else is asked for; as `pytest_bpf.vm.qemu` has it."""


def kernels(config: pytest.Config, *, exact: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the kernels that tests run on, and those that may fail.

    Those of the command line stand for the configuration's, which still says which may fail.
    """
    asked: list[str] = config.getoption("bpf_kernel") or []
    optional: list[str] = config.getoption("bpf_kernel_may_fail") or []
    listed = words(config, "bpf_kernels_may_fail")
    if asked or not optional:
        optional = [*optional, *(k for k in listed if k in asked or not asked)]
    chosen = asked or words(config, "bpf_kernels") or (["debian"] if exact else [])
    required = [kernel for kernel in chosen if kernel not in optional]
    if not chosen and optional:
        required = ["host"]
    return tuple(required), tuple(optional)


def machine(value: Callable[[str], Any]) -> list[str]:
    """Return what was chosen about machines, as words for ``python -m pytest_bpf.vm``.

    ``value`` gives a setting by its name. Raises `pytest.UsageError` for what is no number.
    """
    numbers = {name: _number(name, value) for name in MACHINE}
    return [f"--{name.replace('_', '-')}={n}" for name, n in numbers.items() if n is not None]


def most_memory(value: Callable[[str], Any]) -> int:
    """Return the MiB that a machine may get for a test that lacks memory; 0 for no more.

    Raises `pytest.UsageError` for what is no number, and for less than machines have anyway.
    """
    most = _number("memory_max", value)
    if most is None:
        return 0
    if most <= (least := _number("memory", value) or MEMORY):
        raise pytest.UsageError(
            f"bpf_memory_max must be more than the {least} MiB that a machine has, not {most}"
        )
    return most


def _number(name: str, value: Callable[[str], Any]) -> int | None:
    number = value(f"bpf_{name}")
    if number == "":
        return None
    if not str(number).isdecimal():
        raise pytest.UsageError(f"bpf_{name} must be a whole number, not {number!r}")
    if int(number) == 0 and name != "hang_timeout":
        raise pytest.UsageError(f"bpf_{name} must be at least 1, not {number!r}")
    return int(number)
