"""The slow-down of a workload, on every kind of hook that this kernel has."""

from __future__ import annotations

import math
import os
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import AttachError, BpfError, Overhead, Syscalls, UnavailableError, overhead
from pytest_bpf.costs.figures.intervals import rank_interval
from pytest_bpf.costs.slow_down import LOOKS
from pytest_bpf.kernel.programs.run_time_stats import statistics
from pytest_bpf.netns.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf import Program
    from tests.conftest import Load

PROGRAMS = """
const volatile __u32 only = 0;
#define SLOW(section, name, pass) \
    SEC(section) int name(void *ctx) \
    { \
        if (only && bpf_get_current_pid_tgid() >> 32 != only) \
            return pass; \
        for (int i = 0; i < 20000; i++) \
            asm volatile("r1 += 1" ::: "r1"); \
        return pass; \
    }
SLOW("tracepoint/syscalls/sys_enter_getpid", by_tracepoint, 0)
SLOW("raw_tp/sys_enter", by_raw_tp, 0)
SLOW("tp_btf/sys_enter", by_tp_btf, 0)
SLOW("cgroup/connect4", by_cgroup, 1)
SEC("xdp") int by_xdp(struct xdp_md *ctx)
{
    for (int i = 0; i < 3000; i++)
        asm volatile("r1 += 1" ::: "r1");
    return XDP_PASS;
}
SEC("tc") int by_tc(struct __sk_buff *skb)
{
    for (int i = 0; i < 3000; i++)
        asm volatile("r1 += 1" ::: "r1");
    return 0;
}
"""


@pytest.fixture
def programs(load: Load) -> Callable[..., Program]:
    def programs(name: str) -> Program:
        obj = load(PROGRAMS, globals={"only": os.getpid()}, programs=[name])
        return obj.programs[name]

    return programs


@pytest.fixture
def places() -> Iterator[Places]:
    with Places() as places:
        yield places


def getpid(count: int = 200) -> object:
    return Syscalls().getpid(count)


def shows_the_program(found: Overhead) -> None:
    """Many microseconds are added to each event: no machine is too noisy to see that."""
    assert found.program.value > 0.2, found
    assert found.slow_down.lower <= found.slow_down.value <= found.slow_down.upper
    assert found.rounds >= 1


@pytest.mark.parametrize("name", ["by_tracepoint", "by_raw_tp", "by_tp_btf"])
def test_where_the_section_says_the_hook(programs: Callable[..., Program], name: str) -> None:
    program = programs(name)
    shows_the_program(overhead(program, getpid, seconds=0.2))
    with statistics():
        before = program.run_cnt
        getpid()
        assert program.run_cnt == before, "it is still attached"


def test_on_a_cgroup(programs: Callable[..., Program], places: Places) -> None:
    cgroup = places.cgroup()
    connect = partial(Syscalls().connect, 50, cgroup=cgroup)
    shows_the_program(overhead(programs("by_cgroup"), connect, cgroup, seconds=0.2))


@pytest.mark.parametrize(
    ("name", "options"), [("by_xdp", {"mode": "native"}), ("by_tc", {"direction": "ingress"})]
)
def test_on_an_interface(
    programs: Callable[..., Program], places: Places, name: str, options: dict[str, Any]
) -> None:
    left, right = places.pair()
    send = partial(left.traffic.udp, to=right, count=50)
    found = overhead(programs(name), send, right.iface, seconds=0.2, **options)
    assert found.rounds >= 1
    assert found.seconds > 0


def test_an_object_with_all_that_attach_by_themselves(load: Load) -> None:
    obj = load(
        PROGRAMS, globals={"only": os.getpid()}, programs=["by_tracepoint", "by_raw_tp", "by_xdp"]
    )
    shows_the_program(overhead(obj, getpid, seconds=0.2))
    only = load(PROGRAMS, programs=["by_xdp"])
    with pytest.raises(BpfError, match=r"no program's section says where to attach it; pass one"):
        overhead(only, getpid)


@pytest.fixture
def _few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_bpf.costs.slow_down.LOOKS", (8, 12))


@pytest.mark.usefixtures("_few_looks")
def test_it_stops_when_it_is_sure(programs: Callable[..., Program]) -> None:
    found = overhead(programs("by_tracepoint"), getpid, precision=100.0, seconds=60)
    assert (found.rounds, found.sure) == (8, True)
    assert "not sure" not in str(found)


@pytest.mark.usefixtures("_few_looks")
def test_it_stops_when_a_limit_is_decided(programs: Callable[..., Program]) -> None:
    found = overhead(programs("by_tracepoint"), getpid, limit=0.01, precision=1e-9, seconds=60)
    assert found.sure
    assert found.slow_down.lower > 0.01


def test_it_says_that_it_is_not_sure(programs: Callable[..., Program]) -> None:
    found = overhead(programs("by_tracepoint"), getpid, precision=1e-9, seconds=0.1)
    assert not found.sure
    assert found.rounds < LOOKS[-1]
    assert "not sure: the machine was too noisy for the time given" in str(found)


def test_its_figures(programs: Callable[..., Program]) -> None:
    found = overhead(programs("by_tracepoint"), getpid, seconds=0.1, consumer=os.getpid())
    figures = {figure.metric: figure for figure in found.figures()}
    assert set(figures) == {
        *("overhead", "overhead_hook", "overhead_program", "overhead_consumer"),
    }
    whole = figures["overhead"]
    assert whole.value == found.slow_down.value
    assert found.slow_down.upper == math.inf
    assert whole.lower is whole.upper is None, "so few rounds bound nothing"
    assert "bounds unknown" in str(found)
    assert found.consumer is not None


def test_a_workload_that_fails_leaves_nothing_attached(programs: Callable[..., Program]) -> None:
    program, calls = programs("by_tracepoint"), iter(range(30))

    def failing() -> None:
        getpid(1)
        if next(calls) == 20:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        overhead(program, failing)
    with program.attach():
        pass


def test_what_cannot_be_attached(programs: Callable[..., Program]) -> None:
    with pytest.raises(AttachError, match=r"'(by_tracepoint|empty)'"):
        overhead(programs("by_tracepoint"), getpid, "syscalls:no_such_thing", seconds=1)


@pytest.mark.bpf_requires(program_type="ext")
def test_a_kind_without_an_empty_program(load: Load) -> None:
    target = load(
        'SEC("xdp") int first(struct xdp_md *ctx) { return 2; }\n'
        "__noinline int inner(struct xdp_md *ctx) { return ctx->rx_queue_index; }\n"
        'SEC("xdp") int calling(struct xdp_md *ctx) { return inner(ctx); }'
    )
    other = load(
        'SEC("freplace") int instead(struct xdp_md *ctx) { return 1; }',
        attach_to={"instead": (target.programs["calling"], "inner")},
    )
    with pytest.raises(UnavailableError, match="no empty program to compare 'instead'"):
        overhead(other.programs["instead"], getpid)


@pytest.mark.parametrize("wrong", [{"precision": 0}, {"seconds": -1.0}])
def test_impossible_wishes(programs: Callable[..., Program], wrong: dict[str, float]) -> None:
    with pytest.raises(BpfError, match="must be above 0"):
        overhead(programs("by_tracepoint"), getpid, **wrong)  # type: ignore[arg-type]


def test_intervals_hold_what_they_promise() -> None:
    """All looks together miss the truth in 5 % at most, however the noise is shaped."""
    chance, missed = random.Random(5), 0
    for _ in range(400):
        samples: list[float] = []
        wrong = False
        for rounds in (*LOOKS, LOOKS[-1] + 7):
            samples += [chance.lognormvariate(0, 1) for _ in range(rounds - len(samples))]
            _, lower, upper = rank_interval(samples, 0.99)
            wrong |= not lower <= 1.0 <= upper
        missed += wrong
    assert missed <= 0.05 * 400
    assert missed > 0, "too wide: more rounds than needed"


def test_a_rank_interval_of_few() -> None:
    assert rank_interval([3.0, 1.0, 2.0], 0.99) == (2.0, -math.inf, math.inf)
    assert rank_interval(list(range(1, 9)), 0.99) == (4.5, 1, 8)
    assert rank_interval(list(range(1, 13)), 0.99) == (6.5, 2, 11)


def test_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile('''
        TEXT = """
        #include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        char LICENSE[] SEC("license") = "GPL";
        SEC("raw_tp/sys_enter") int nothing(void *ctx) { return 0; }
        """
        def test_it(bpf, bpf_overhead, bpf_syscalls):
            obj = bpf.load(TEXT)
            found = bpf_overhead(obj, lambda: bpf_syscalls.getpid(100), seconds=0.1)
            assert found.rounds
    ''')
    assert pytester.runpytest_subprocess("--bpf-strict").ret == 0
