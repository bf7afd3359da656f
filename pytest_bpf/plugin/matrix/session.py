"""The same tests on several kernels, each by pytest-xdist workers of its own (``--bpf-kernel``)."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.cache import open_cache
from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys.processes import end_quickly
from pytest_bpf.plugin.matrix import attended, folders, hosts, memory, names, sending
from pytest_bpf.plugin.matrix.by_kernel import Rejections
from pytest_bpf.plugin.matrix.choices import Choices, gateways, unique
from pytest_bpf.plugin.matrix.controller import Controller
from pytest_bpf.plugin.matrix.relay import PORTS, Relay
from pytest_bpf.plugin.matrix.unreachable import Unreachable
from pytest_bpf.plugin.matrix.waiting import WaitingMachines
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.signals import end_as_interrupted
from pytest_bpf.vm import NO_MACHINE, calls

if TYPE_CHECKING:
    import execnet

    from pytest_bpf.compile import remote

RESTARTS = 4
"""How often each worker may die before the run is given up, as in pytest-xdist."""

COMPILE_TIMEOUT = 300
"""Seconds that a worker waits for the controller to compile."""

CHOICES = pytest.StashKey[Choices]()
WAITING = pytest.StashKey[WaitingMachines]()


def prepare(config: pytest.Config) -> None:
    """Find the kernels, begin with their machines, and tell pytest-xdist of one worker for each.

    ``-n N`` means N workers a kernel. Raises `pytest.UsageError` in one sentence for what is
    missing.
    """
    if attended.here(config):
        return
    asked = attended.asked(config)
    if not config.pluginmanager.hasplugin("xdist"):
        raise pytest.UsageError(
            "--bpf-kernel needs pytest-xdist, which runs a worker for each kernel; "
            "pip install 'pytest-bpf[vm]'"
        )
    found = _find(config, asked)
    choices = found.kernels
    if asked:
        config.stash[attended.CHOICES] = found
        return
    config.stash[CHOICES] = found
    option = config.option
    if option.collectonly:
        option.numprocesses, option.dist = None, "no"
        return
    stack, count = ExitStack(), _workers(config)
    config.add_cleanup(stack.close)
    waiting = WaitingMachines(stack.enter_context(open_cache().workspace()))
    stack.callback(waiting.end)
    config.stash[WAITING] = waiting
    for kernel in choices:
        if getattr(option, "looponfail", False):
            break  # the sessions that follow have workers, this one has none
        if kernel.is_virtual and kernel.host:
            found.connections[kernel.host.address.spec].begin_saving(kernel.place, kernel.words)
        elif kernel.is_virtual:
            waiting.begin(kernel, count)
    for host in {kernel.host for kernel in choices if kernel.host}:
        if host.sent:
            _use_relative_paths(config, host.sent[0])
    option.px = gateways(choices)
    option.tx = [kernel.worker(number) for kernel in choices for number in range(count)]
    option.dist = "load" if option.dist in ("no", "each") else option.dist
    option.numprocesses = None
    if option.maxworkerrestart is None:
        option.maxworkerrestart = str(RESTARTS * len(option.tx))
    from pytest_bpf.netns.places import sweep

    sweep()
    end_quickly()


def _find(config: pytest.Config, asked: str) -> Choices:
    """Return the kernels that were asked for and that the arguments select.

    ``asked`` is the option by which a person attends the session, if there is one.
    """
    chosen = settings(config)
    memory.check(config, chosen.most_memory)
    files = folders.writable(config, whole_project=bool(asked))
    machine = (*chosen.machine, *(f"--writable={folder}" for folder in files))
    wanted = tuple(dict.fromkeys((*chosen.kernels, *chosen.optional_kernels)))
    if asked:
        attended.refuse_hosts(asked, wanted)
    found = Choices(machine, partial(_project, config))
    config.add_cleanup(found.close)
    try:
        for choice in wanted:
            found.add(choice, may_fail=choice in chosen.optional_kernels)
    except BpfError as error:
        raise pytest.UsageError(f"--bpf-kernel: {error}") from None
    _check(found, exact=chosen.exact)
    session = unique(found.kernels)
    found.kernels = [
        kernel
        for kernel in found.kernels
        if any(names.select(argument, [kernel.name], session) for argument in config.args)
    ]
    return found


def _check(found: Choices, *, exact: bool) -> None:
    """Raise `pytest.UsageError` when the tests can run nowhere, or nowhere exactly."""
    if exact and not any(kernel.is_virtual for kernel in found.kernels):
        raise pytest.UsageError(
            "--bpf-exact counts instructions in a machine; the host cannot: add "
            "--bpf-kernel debian, or leave out --bpf-kernel host"
        )
    if not found.kernels:
        reasons = "; ".join(absence.reason for absence in found.absences)
        raise pytest.UsageError(f"--bpf-kernel: no kernel is to be had: {reasons}")


def join(config: pytest.Config) -> None:
    """Join a worker to its controller, before other plugins are configured."""
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    if channel := worker.get("bpf_relay"):
        relay = Relay(channel)
        worker |= {key: relay.listen(key) for key in PORTS if key in worker}


def register(config: pytest.Config) -> None:
    """Add this session's part: of a worker, or of the controller."""
    found = config.stash.get(CHOICES, None)
    shown = session = unique(found.kernels) if found else []
    if inside := attended.here(config):
        shown, session = [inside["kernel"]], inside["kernels"]
        if (port := calls.open_port()) is not None:
            _compile_by(config, calls.asking(port))
    elif worker := getattr(config, "workerinput", {}):
        shown, session = [worker["bpf_kernel"]], worker["bpf_kernels"]
        hosts.make_room(config.option.basetemp)
        if channel := worker.get("bpf_compiler"):
            _compile_by(config, _asking(channel))
        attended.refuse_breakpoints(config, shown[0])
        if room := worker.get("bpf_memory_room"):
            config.pluginmanager.register(memory.Need(room), "bpf-memory")
        if reason := os.environ.get(NO_MACHINE):
            config.pluginmanager.register(Unreachable(shown[0], reason), "bpf-unreachable")
    elif found and not config.option.collectonly:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        stack.enter_context(end_as_interrupted())
        config.pluginmanager.register(
            Controller(config, found, config.stash[WAITING]), "bpf-kernels"
        )
        return
    if settings(config).costs:
        config.pluginmanager.register(Rejections(), "bpf-rejections")
    config.args = [s for argument in config.args for s in names.select(argument, shown, session)]
    config.stash[names.NAMES] = shown
    config.pluginmanager.register(names, "bpf-kernels")


def _compile_by(config: pytest.Config, ask: remote.Ask) -> None:
    """Have this session's sources compiled by whoever answers ``ask``."""
    from pytest_bpf.compile import build, remote

    compiler = partial(remote.compile_remotely, ask)
    build.REMOTE.append(compiler)
    config.add_cleanup(lambda: build.REMOTE.remove(compiler))


def _asking(channel: execnet.Channel) -> remote.Ask:
    """Return what asks the controller, on the other end of ``channel``."""
    one_at_a_time = threading.Lock()

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        with one_at_a_time:
            channel.send(request)
            answer: dict[str, Any] = channel.receive(COMPILE_TIMEOUT)
            return answer

    return ask


def _project(config: pytest.Config) -> sending.Project:
    """Return what is sent to hosts."""
    return sending.project(config.invocation_params.dir, config.rootpath)


def _use_relative_paths(config: pytest.Config, root: str) -> None:
    """Name the files of a project by the way from the current folder: it is the same elsewhere."""
    given = config.invocation_params
    words = [
        os.path.relpath(word, given.dir) if str(word).startswith(f"{root}/") else str(word)
        for word in given.args
    ]
    config.invocation_params = replace(given, args=tuple(words))


def _workers(config: pytest.Config) -> int:
    """Return how many workers each kernel gets: ``-n``, or one."""
    count = config.option.numprocesses
    if count in ("auto", "logical"):
        count = config.hook.pytest_xdist_auto_num_workers(config=config)
    return int(count or 1)
