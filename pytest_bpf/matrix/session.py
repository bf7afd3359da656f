"""The same tests on several kernels, each by pytest-xdist workers of its own (``--bpf-kernel``)."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import options
from pytest_bpf.errors import BpfError
from pytest_bpf.matrix import hosts, names, saving
from pytest_bpf.matrix.controller import HOST, Chosen, Controller
from pytest_bpf.matrix.lost import Lost
from pytest_bpf.vm import NO_MACHINE
from pytest_bpf.vm.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import execnet

RESTARTS = 4
"""How often each worker may die before the run is given up, as in pytest-xdist."""

COMPILE_TIMEOUT = 300
"""Seconds that a worker waits for the controller to compile."""

CHOSEN = pytest.StashKey[list[Chosen]]()


def prepare(config: pytest.Config) -> None:
    """Find the kernels, begin with their machines, and tell pytest-xdist of one worker for each.

    ``-n N`` means N workers a kernel. Raises `pytest.UsageError` in one sentence for what is
    missing.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        raise pytest.UsageError(
            "--bpf-kernel needs pytest-xdist, which runs a worker for each kernel; "
            "pip install 'pytest-bpf[vm]'"
        )
    try:
        chosen = _found(options.kernels(config), options.machine(config))
    except BpfError as error:
        raise pytest.UsageError(f"--bpf-kernel: {error}") from None
    if options.exact(config) and not any(kernel.is_virtual for kernel in chosen):
        raise pytest.UsageError(
            "--bpf-exact counts instructions in a machine; the host cannot: add "
            "--bpf-kernel debian, or leave out --bpf-kernel host"
        )
    config.stash[CHOSEN] = chosen
    option = config.option
    if option.collectonly:
        option.numprocesses, option.dist = None, "no"
        return
    for kernel in chosen:
        if kernel.is_virtual:
            saving.begin(config, kernel.name, kernel.command)
    count = _workers(config)
    option.px = [hosts.gateway(k.choice, k.name) for k in chosen if k.is_elsewhere]
    option.tx = [kernel.worker(number) for kernel in chosen for number in range(count)]
    option.dist = "load" if option.dist in ("no", "each") else option.dist
    option.numprocesses = None
    if option.maxworkerrestart is None:
        option.maxworkerrestart = str(RESTARTS * len(option.tx))


def register(config: pytest.Config) -> None:
    """Add this session's part: of a worker, or of the controller."""
    chosen = config.stash.get(CHOSEN, [])
    shown = [kernel.name for kernel in chosen]
    if worker := getattr(config, "workerinput", {}):
        shown = [worker["bpf_kernel"]]
        hosts.make_room(config.option.basetemp)
        if channel := worker.get("bpf_compiler"):
            _compile_by(config, channel)
        if reason := os.environ.get(NO_MACHINE):
            config.pluginmanager.register(Lost(shown[0], reason), "bpf-lost")
    elif not config.option.collectonly:
        config.pluginmanager.register(Controller(config, chosen), "bpf-kernels")
        return
    config.stash[names.NAMES] = shown
    config.pluginmanager.register(names, "bpf-kernels")


def _compile_by(config: pytest.Config, channel: execnet.Channel) -> None:
    """Have this session's sources compiled by the controller, on the other end of ``channel``."""
    from pytest_bpf.compile import build, elsewhere

    one_at_a_time = threading.Lock()

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        with one_at_a_time:
            channel.send(request)
            answer: dict[str, Any] = channel.receive(COMPILE_TIMEOUT)
            return answer

    compiler = partial(elsewhere.compile_elsewhere, ask)
    build.ELSEWHERE.append(compiler)
    config.add_cleanup(lambda: build.ELSEWHERE.remove(compiler))


def _found(choices: Sequence[str], machine: Sequence[str]) -> list[Chosen]:
    """Return the kernels, each once, those of one release told apart by number."""
    found = {_found_one(choice): choice for choice in dict.fromkeys(choices)}
    named: dict[str, str] = {}
    for kernel, choice in found.items():
        release = str(kernel)
        is_path = isinstance(kernel, Kernel) and "/" in choice
        same = sum(name.partition("#")[0] == release for name in named)
        written = os.path.normpath(choice) if is_path else choice
        named[f"{release}#{same + 1}" if same else release] = written
    return [Chosen(choice, name, tuple(machine)) for name, choice in named.items()]


def _found_one(choice: str) -> Kernel | str:
    """Return the kernel of a machine, `HOST`, or the address of a real host."""
    if choice.startswith(hosts.WAYS):
        return hosts.address(choice)
    from pytest_bpf.vm import kernels

    return kernels.find(choice) or HOST


def _workers(config: pytest.Config) -> int:
    """Return how many workers each kernel gets: ``-n``, or one."""
    count = config.option.numprocesses
    if count in ("auto", "logical"):
        count = config.hook.pytest_xdist_auto_num_workers(config=config)
    return int(count or 1)
