"""The fixtures, each a few lines that call a station."""

from __future__ import annotations

import gc
import warnings
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import LeakWarning, UnavailableError
from pytest_bpf.options import settings
from pytest_bpf.stash import AGENTS, COSTS, EARLIER, FINDING, LOADER, MEASURED

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_bpf.agents import AgentCost, Agents
    from pytest_bpf.claims import Finding
    from pytest_bpf.costs import Measure, MeasureCosts, MeasureOverhead
    from pytest_bpf.evidence import Drops, ReasonCounter
    from pytest_bpf.judging.deciding import Budget
    from pytest_bpf.loader import Choices, Loader
    from pytest_bpf.objects import Object
    from pytest_bpf.places import Cgroup, Namespace, Topology
    from pytest_bpf.places.factory import Places
    from pytest_bpf.stimuli import Syscalls, Traffic


@pytest.fixture(scope="session")
def _bpf_session() -> set[str]:
    """Whatever uses BPF begins here: what killed runs left is removed.

    Gives what the session itself holds open, so that no test is blamed for it.
    """
    from pytest_bpf.places.owned import sweep

    sweep()
    return set()


@pytest.fixture
def _bpf_leaks(request: pytest.FixtureRequest, _bpf_session: set[str]) -> Iterator[None]:
    """Compare what the process holds open before and after a test, and say what was leaked."""
    from pytest_bpf.kernel.held import held

    before = held()
    yield
    if held() - before - _bpf_session:
        gc.collect()
    leaked = sorted(held() - before - _bpf_session)
    if leaked:
        message = f"{request.node.nodeid} left open: {', '.join(leaked)}; close what it opened"
        if settings(request.config).strict:
            pytest.fail(message, pytrace=False)
        warnings.warn(LeakWarning(message), stacklevel=1)


@pytest.fixture
def bpf(request: pytest.FixtureRequest, _bpf_leaks: None) -> Iterator[Loader]:
    """Load BPF objects from sources, objects or text: ``bpf.load("count.bpf.c")``.

    Relative paths start at the test's file. Everything is detached and unloaded after the test.
    """
    yield from _loader(request)


@pytest.fixture(scope="module")
def bpf_module(request: pytest.FixtureRequest, _bpf_session: set[str]) -> Iterator[Loader]:
    """The same for a whole module: what it loads stays until the module's last test."""
    yield from _loader(request)


def _loader(request: pytest.FixtureRequest) -> Iterator[Loader]:
    from pytest_bpf.costs import cost_so_far, statistics
    from pytest_bpf.kernel.privilege import privilege
    from pytest_bpf.loader import Loader

    missing = privilege()
    if missing:
        raise UnavailableError(missing)
    config = request.config
    shown = settings(config).costs

    def loaded(obj: Object) -> None:
        request.node.ihook.pytest_bpf_object_loaded(request=request, obj=obj)

    def closing(obj: Object) -> None:
        if shown:
            costs = request.node.stash.setdefault(COSTS, [])
            costs += [cost_so_far(str(obj.path), p).as_dict() for p in obj.programs.values()]

    with ExitStack() as stack:
        if shown:
            stack.enter_context(statistics())
        loader = stack.enter_context(
            Loader(
                request.path.parent,
                choices=_choices(request),
                loaded=loaded,
                closing=closing,
                earlier=config.stash.get(EARLIER, None),
            )
        )
        request.node.stash[LOADER] = loader
        yield loader


def _choices(request: pytest.FixtureRequest) -> Callable[[str | os.PathLike[str]], Choices]:
    """Return how sources are compiled in this session: by hooks, options, ini."""
    from pytest_bpf.compile import Compiler, find
    from pytest_bpf.loader import Choices

    config, chosen, hook = request.config, settings(request.config), request.node.ihook

    def choices(source: str | os.PathLike[str]) -> Choices:
        answer = hook.pytest_bpf_compiler(config=config, source=source) or chosen.cc
        flags = hook.pytest_bpf_cflags(config=config, source=source)
        return Choices(
            compiler=answer if isinstance(answer, Compiler) else find(answer or None),
            cflags=(*chosen.cflags, *(flag for some in flags if some for flag in some)),
            include_dirs=chosen.include_dirs,
            defines=chosen.defines,
        )

    return choices


@pytest.fixture
def bpf_places(_bpf_leaks: None) -> Iterator[Places]:
    """Make further places: ``bpf_places.pair()``, ``.router()``, ``.bridge(4)``, ``.cgroup()``.

    All of them are gone after the test.
    """
    from pytest_bpf.places.factory import Places

    with Places() as places:
        yield places


@pytest.fixture
def bpf_netns(bpf_places: Places) -> Namespace:
    """One private network namespace with nothing but its loopback."""
    return bpf_places.namespace()


@pytest.fixture
def bpf_netns_pair(bpf_places: Places) -> Topology:
    """Two private network namespaces, ``left, right``, joined by a veth, with IPv4 and IPv6."""
    return bpf_places.pair()


@pytest.fixture
def bpf_cgroup(bpf_places: Places) -> Cgroup:
    """A private cgroup (v2): attach programs to it, run functions, processes and sockets in it."""
    return bpf_places.cgroup()


@pytest.fixture
def bpf_pins(bpf_places: Places) -> Path:
    """A private directory for pins on a bpf file system."""
    return bpf_places.pins()


@pytest.fixture
def bpf_traffic(bpf_netns: Namespace) -> Traffic:
    """Traffic over the loopback of a private network namespace (`bpf_netns`)."""
    return bpf_netns.traffic


@pytest.fixture
def bpf_agent(request: pytest.FixtureRequest, _bpf_leaks: None) -> Iterator[Agents]:
    """Start any command that loads programs: ``bpf_agent("bpftrace -e '...'")``.

    Gives an `Agent` once its programs are attached. It is ended after the test, which fails when
    the agent died, ignored the signal to end, or left something behind.
    """
    from pytest_bpf.agents import Agents
    from pytest_bpf.kernel.privilege import privilege

    missing = privilege()
    if missing:
        raise UnavailableError(missing)

    def measured(cost: AgentCost) -> None:
        request.node.stash.setdefault(MEASURED, []).append(cost)

    with Agents(request.path.parent, measured=measured) as agents:
        request.node.stash[AGENTS] = agents
        yield agents


@pytest.fixture
def bpf_syscalls(request: pytest.FixtureRequest) -> Syscalls:
    """Loops of common system calls, exactly as many as asked: ``bpf_syscalls.openat(500)``."""
    from pytest_bpf.stimuli import Syscalls

    answers = request.node.ihook.pytest_bpf_workloads(config=request.config)
    return Syscalls({name: work for some in answers if some for name, work in some.items()})


@pytest.fixture
def bpf_measure(request: pytest.FixtureRequest) -> Measure:
    """What one run of a program costs: ``bpf_measure(program, lambda: bpf_syscalls.getpid(100))``.

    Gives a `RunCost`, in nanoseconds, or in exact mode in instructions.
    """
    from pytest_bpf.costs import measure

    return partial(_measured, request, measure)


def _measured(
    request: pytest.FixtureRequest, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Call what measures, and keep what it returns for the test's budget and baseline."""
    value = function(*args, **kwargs)
    request.node.stash.setdefault(MEASURED, []).append(value)
    return value


@pytest.fixture
def bpf_budget(request: pytest.FixtureRequest) -> Budget:
    """Hold what was measured against limits: ``bpf_budget(cost, run_time="150ns")``.

    Raises `BudgetError` for what is broken; without limits the figures are those that the marker
    and the baseline see.
    """
    from pytest_bpf.judging.deciding import Budget

    return Budget(request.node)


@pytest.fixture
def bpf_costs(request: pytest.FixtureRequest) -> MeasureCosts:
    """What an object costs in a workload: ``bpf_costs(obj, lambda: bpf_syscalls.getpid(100))``.

    Gives `Costs`; or ``with bpf_costs(obj) as span: ...``, then ``span.costs``.
    """
    from pytest_bpf.costs import costs_of

    return partial(_measured, request, costs_of)


@pytest.fixture
def bpf_overhead(request: pytest.FixtureRequest) -> MeasureOverhead:
    """How much slower a workload gets: ``bpf_overhead(program, lambda: bpf_syscalls.read(1000))``.

    Gives an `Overhead`: the whole, the hook's part, the program's, the consumer's.
    """
    from pytest_bpf.costs import overhead

    return partial(_measured, request, overhead)


@pytest.fixture
def bpf_claim(request: pytest.FixtureRequest) -> Finding:
    """Say what the test found of the claim in its marker: ``bpf_claim(after < before, ...)``.

    The test fails when that is another verdict than the marker's.
    """
    from pytest_bpf.claims import Claim, Finding

    mark = request.node.get_closest_marker("bpf_claim")
    if mark is None:
        pytest.fail("bpf_claim: the test has no marker of that name: what is claimed?", False)
    finding = Finding(Claim.parse(mark))
    request.node.stash[FINDING] = finding
    return finding


@pytest.fixture(scope="session")
def _bpf_drop_reasons(_bpf_session: set[str]) -> Iterator[ReasonCounter]:
    """The program that counts drops by reason: attached once, counting while a test asks."""
    from pytest_bpf.evidence import ReasonCounter
    from pytest_bpf.kernel.held import held

    before = held()
    with ReasonCounter() as counter:
        _bpf_session |= held() - before
        yield counter


@pytest.fixture
def bpf_drops(bpf_places: Places, _bpf_drop_reasons: ReasonCounter) -> Iterator[Drops]:
    """What was dropped, and why, in this test's namespaces from here on."""
    from pytest_bpf.evidence import Drops

    with Drops(bpf_places.namespaces, _bpf_drop_reasons) as drops:
        yield drops
