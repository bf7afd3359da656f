"""The fixtures, each a few lines that call a station."""

from __future__ import annotations

import gc
import warnings
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import LeakWarning, UnavailableError
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import (
    AGENTS,
    CLAIM_CHECK,
    DROPS,
    MADE,
    MEASUREMENTS,
    PLACES,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_bpf.agents import AgentCost, Agents
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.cgroup import Cgroup
    from pytest_bpf.costs.run import Measure
    from pytest_bpf.costs.slow_down import MeasureOverhead
    from pytest_bpf.costs.span import MeasureCosts
    from pytest_bpf.coverage.line_costs import LineCosts
    from pytest_bpf.coverage.span import MeasureLines
    from pytest_bpf.coverage.verifier_costs import VerifierCosts
    from pytest_bpf.drops import Drops, ReasonCounter
    from pytest_bpf.lint import LintFinding
    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Namespace, Topology
    from pytest_bpf.netns.places import Places
    from pytest_bpf.objects import Object, Program
    from pytest_bpf.objects.loading.open_object import OpenObject
    from pytest_bpf.plugin.budgets.decision import Budget
    from pytest_bpf.plugin.fuzzing import CheckEquivalence, CheckInvariants, FindWorst
    from pytest_bpf.syscalls import Syscalls
    from pytest_bpf.traffic import Traffic


@pytest.fixture(scope="session")
def _bpf_session() -> Iterator[set[str]]:
    """Begin the use of BPF: remove what killed runs left.

    Gives what the session itself holds open, so that no test is blamed for it. SIGTERM and SIGHUP
    end the session as Ctrl-C does from now on.
    """
    from pytest_bpf.kernel.sys.processes import end_quickly
    from pytest_bpf.netns.places import sweep
    from pytest_bpf.plugin.signals import end_as_interrupted

    sweep()
    end_quickly()
    with end_as_interrupted():
        yield set()


def bpf_session(request: pytest.FixtureRequest) -> set[str]:
    """Return what `_bpf_session` gives.

    A fixture of a test that named it as an argument would be kept until the end of the session:
    pytest has a fixture keep each that it must finish before itself.
    """
    ours: set[str] = request.getfixturevalue("_bpf_session")
    return ours


@pytest.fixture
def _bpf_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare what this process, those below it and their daemons hold open before and after."""
    from pytest_bpf.kernel.sys.descriptors import open_objects, processes
    from pytest_bpf.plugin import leaks

    session = bpf_session(request)
    made = request.config.stash.setdefault(MADE, set())
    held = partial(leaks.held_by_test, request.node.nodeid, processes(), made)
    before = held()
    yield
    if left := held() - before - session:
        gc.collect()
        left = held() - before - session
    made.intersection_update(open_objects())
    if left:
        message = leaks.message(request.node.nodeid, left)
        if settings(request.config).strict:
            pytest.fail(message, pytrace=False)
        warnings.warn(LeakWarning(message), stacklevel=1)


@pytest.fixture
def bpf_places(request: pytest.FixtureRequest, _bpf_leaks: None) -> Iterator[Places]:
    """Make further places: ``bpf_places.pair()``, ``.router()``, ``.bridge(4)``, ``.cgroup()``.

    All of them are gone after the test.
    """
    from pytest_bpf.netns.places import Places

    with ExitStack() as stack:
        if settings(request.config).captures:
            from pytest_bpf.plugin.artifacts.captures import CAPTURES, Captures

            captures = request.node.stash[CAPTURES] = Captures()
            places = stack.enter_context(Places(captures.add))
            stack.callback(captures.close)
        else:
            places = stack.enter_context(Places())
        request.node.stash[PLACES] = places
        yield places
    del request.node.stash[PLACES]


@pytest.fixture(scope="module")
def bpf_places_module(request: pytest.FixtureRequest) -> Iterator[Places]:
    """The same for a whole module: what it makes stays until the module's last test."""
    from pytest_bpf.netns.places import Places

    bpf_session(request)
    with Places() as places:
        yield places


@pytest.fixture(scope="session")
def bpf_places_session(_bpf_session: set[str]) -> Iterator[Places]:
    """The same for a whole session."""
    from pytest_bpf.netns.places import Places

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
    from pytest_bpf.kernel.features.privilege import privilege

    missing = privilege()
    if missing:
        raise UnavailableError(missing)

    def measured(cost: AgentCost) -> None:
        request.node.stash.setdefault(MEASUREMENTS, []).append(cost)

    with Agents(request.path.parent, record=measured) as agents:
        request.node.stash[AGENTS] = agents
        yield agents


@pytest.fixture
def bpf_syscalls(request: pytest.FixtureRequest) -> Syscalls:
    """Loops of common system calls, exactly as many as asked: ``bpf_syscalls.openat(500)``."""
    from pytest_bpf.syscalls import Syscalls

    answers = request.node.ihook.pytest_bpf_workloads(config=request.config)
    return Syscalls({name: work for some in answers if some for name, work in some.items()})


@pytest.fixture
def bpf_statistics() -> Iterator[None]:
    """The kernel counts and times the runs of programs: ``run_cnt`` and ``run_time_ns``."""
    from pytest_bpf.kernel.programs.run_time_stats import statistics

    with statistics():
        yield


@pytest.fixture
def bpf_measure(request: pytest.FixtureRequest) -> Measure:
    """What one run of a program costs: ``bpf_measure(program, lambda: bpf_syscalls.getpid(100))``.

    Gives a `RunCost`, in nanoseconds, or in exact mode in instructions.
    """
    from pytest_bpf.costs.run import measure

    return partial(_measured, request, measure)


def _measured(
    request: pytest.FixtureRequest, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Call what measures, and keep what it returns for the test's budget and baseline."""
    value = function(*args, **kwargs)
    request.node.stash.setdefault(MEASUREMENTS, []).append(value)
    return value


@pytest.fixture
def bpf_budget(request: pytest.FixtureRequest) -> Budget:
    """Hold what was measured against limits: ``bpf_budget(cost, run_time="150ns")``.

    Raises `BudgetError` for what is broken; without limits the figures are those that the marker
    and the baseline see.
    """
    from pytest_bpf.plugin.budgets.decision import Budget

    return Budget(request.node)


@pytest.fixture
def bpf_lint() -> Callable[..., list[LintFinding]]:
    """What the guide advises against in an object that is open, as rules find it.

    ``assert not bpf_lint(bpf.open("count.bpf.c"))``

    Takes an open object, and the members of `LintOptions` by name: ``kernel``, ``cpus``,
    ``memory``, ``select``, ``ignore``. Returns a list of `LintFinding`.
    """
    from pytest_bpf.lint import LintOptions, lint

    def find(obj: OpenObject, **members: Any) -> list[LintFinding]:
        return lint(obj, settings=LintOptions(**members))

    return find


@pytest.fixture
def bpf_costs(request: pytest.FixtureRequest) -> MeasureCosts:
    """What an object costs in a workload: ``bpf_costs(obj, lambda: bpf_syscalls.getpid(100))``.

    Gives `Costs`; or ``with bpf_costs(obj) as span: ...``, then ``span.costs``.
    """
    from pytest_bpf.costs.span import costs_of

    return partial(_measured, request, costs_of)


@pytest.fixture
def bpf_overhead(request: pytest.FixtureRequest) -> MeasureOverhead:
    """How much slower a workload gets: ``bpf_overhead(program, lambda: bpf_syscalls.read(1000))``.

    Gives an `Overhead`: the whole, the hook's part, the program's, the consumer's.
    """
    from pytest_bpf.costs.slow_down import overhead

    return partial(_measured, request, overhead)


@pytest.fixture
def bpf_lines(request: pytest.FixtureRequest) -> MeasureLines:
    """The lines of C that run in a workload: ``bpf_lines(obj, lambda: bpf_syscalls.getpid(9))``.

    Gives `LineCounts`; or ``with bpf_lines(obj) as span: ...``, then ``span.lines``. With this
    fixture the test's objects count their lines, and `Run.lines` has those of each test run.
    """
    from pytest_bpf.coverage.span import lines_of
    from pytest_bpf.plugin.coverage.choice import measures

    if measures(request.node):
        pytest.fail(
            "bpf_lines counts lines, and the test also measures programs, as they ship: "
            "make it two tests",
            pytrace=False,
        )
    return lines_of


@pytest.fixture
def bpf_line_costs() -> Callable[[Object, Callable[[], object]], LineCosts]:
    """What each line of C costs: ``bpf_line_costs(obj, lambda: program.test_run(packet))``.

    Gives `LineCosts`: machine instructions and calls of helpers, of the programs that ship.
    """
    from pytest_bpf.coverage.line_costs import line_costs

    return line_costs


@pytest.fixture
def bpf_verifier_costs() -> Callable[[Program], VerifierCosts]:
    """What each line of C costs the verifier: ``bpf_verifier_costs(obj.programs["filter"])``.

    Gives `VerifierCosts`: the instructions that it processed for each line, over all paths.
    """
    from pytest_bpf.coverage.verifier_costs import verifier_costs

    return verifier_costs


@pytest.fixture
def bpf_claim(request: pytest.FixtureRequest) -> ClaimCheck:
    """Report the test's verdict on the claim in its marker: ``bpf_claim(after < before, ...)``.

    The test fails when that is another verdict than the marker's.
    """
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.budgets.claim_marker import parse_claim

    mark = request.node.get_closest_marker("bpf_claim")
    if mark is None:
        pytest.fail("bpf_claim: the test has no marker of that name: what is claimed?", False)
    finding = ClaimCheck(parse_claim(mark))
    request.node.stash[CLAIM_CHECK] = finding
    return finding


@pytest.fixture(scope="session")
def _bpf_drop_reasons(
    request: pytest.FixtureRequest, _bpf_session: set[str]
) -> Iterator[ReasonCounter]:
    """The program that counts drops by reason: attached once, counting while a test asks."""
    from pytest_bpf.drops import ReasonCounter
    from pytest_bpf.kernel.sys.descriptors import open_objects

    before = open_objects()
    with ReasonCounter(settings(request.config).cc or None) as counter:
        _bpf_session |= open_objects() - before
        yield counter


@pytest.fixture
def bpf_drops(request: pytest.FixtureRequest, bpf_places: Places) -> Iterator[Drops]:
    """What was dropped, and why, in this test's namespaces from here on."""
    from pytest_bpf.drops import Drops

    reasons = request.getfixturevalue("_bpf_drop_reasons")  # as `bpf_session` is asked for
    with Drops(bpf_places.namespaces, reasons) as drops:
        request.node.stash[DROPS] = drops
        yield drops
    del request.node.stash[DROPS]


@pytest.fixture
def bpf_equivalent(request: pytest.FixtureRequest, bpf: Loader) -> CheckEquivalence:
    """Tell whether two programs do the same: ``bpf_equivalent("before.bpf.c", "after.bpf.c")``.

    Both get the same inputs, which are made to reach all of both; a difference fails the test.
    """
    from pytest_bpf.plugin.fuzzing import CheckEquivalence

    return CheckEquivalence(request.node, bpf)


@pytest.fixture
def bpf_fuzz(request: pytest.FixtureRequest, bpf: Loader) -> CheckInvariants:
    """Ask what must hold for every input: ``bpf_fuzz("parse.bpf.c", never_aborts)``."""
    from pytest_bpf.plugin.fuzzing import CheckInvariants

    return CheckInvariants(request.node, bpf)


@pytest.fixture
def bpf_worst(request: pytest.FixtureRequest, bpf: Loader) -> FindWorst:
    """Look for the dearest input: ``bpf_worst("parse.bpf.c").insns``."""
    from pytest_bpf.plugin.fuzzing import FindWorst

    return FindWorst(request.node, bpf)
