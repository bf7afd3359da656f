"""The same programs interpreted and compiled: the same answers, and what compiling is worth.

Whether a program is compiled is decided when it is loaded, by a switch of the whole machine. So it
is turned in virtual machines of this plugin only, for as long as loading takes:

    python -m pytest_bpf.vm --kernel debian -- python -m pytest --pyargs bpf_examples.jit
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.kernel.features import config

if TYPE_CHECKING:
    from pytest_bpf import Loader, Object
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.costs.run import Measure

pytestmark = pytest.mark.bpf_requires(program_type="sched_cls")

STEPS = 1024
FRAME = bytes(64)
MARKS = [1, 7, 2**31, 2**32 - 1]
SWITCH = Path("/proc/sys/net/core/bpf_jit_enable")

WORKS = ["alu", "array", "helper", "hash"]

each_work = pytest.mark.parametrize("work", WORKS)


@pytest.fixture(scope="module")
def both(bpf_module: Loader) -> tuple[Object, Object]:
    """The programs interpreted, and the programs compiled."""
    if config("CONFIG_BPF_JIT_ALWAYS_ON") == "y":
        pytest.skip("this kernel has no interpreter (CONFIG_BPF_JIT_ALWAYS_ON=y)")
    if "/pytest_bpf/vm/guest/" not in Path("/proc/cmdline").read_text():
        pytest.skip("this kernel is not a virtual machine's of pytest-bpf: its JIT stays as it is")
    before = SWITCH.read_text()
    try:
        return load(bpf_module, jit=False), load(bpf_module, jit=True)
    finally:
        SWITCH.write_text(before)


@each_work
def test_answers_are_right(bpf: Loader, work: str) -> None:
    obj = filled(bpf)
    assert [answer(obj, work, mark) for mark in MARKS] == [expected(work, mark) for mark in MARKS]


@each_work
@pytest.mark.bpf_requires(config={"CONFIG_BPF_JIT_ALWAYS_ON": "y"})
def test_kernel_without_an_interpreter_compiles(bpf: Loader, work: str) -> None:
    assert filled(bpf).programs[work].prog_size_jited > 0


@each_work
def test_only_a_compiled_program_has_native_code(both: tuple[Object, Object], work: str) -> None:
    interpreted, compiled = (obj.programs[work] for obj in both)
    assert interpreted.prog_size_jited == 0
    assert compiled.prog_size_jited > 0
    assert interpreted.verified_insns == compiled.verified_insns


@each_work
def test_answers_are_the_same_both_ways(both: tuple[Object, Object], work: str) -> None:
    for mark in MARKS:
        assert [answer(obj, work, mark) for obj in both] == [expected(work, mark)] * 2


@pytest.mark.parametrize(
    ("work", "times"), [("alu", 5), ("array", 4), ("helper", 3), ("hash", 1.3)]
)
def test_compiling_is_worth_most_where_the_program_does_the_work(
    both: tuple[Object, Object], work: str, times: float
) -> None:
    interpreted, compiled = costs(both, work)
    assert interpreted >= times * compiled


@pytest.mark.bpf_claim(
    "a compiled program is 5 to 10 times as fast as an interpreted one",
    row=13,
    verdict="holds in part",
)
@pytest.mark.bpf_requires(exact=True)
def test_compiled_is_five_times_as_fast(
    both: tuple[Object, Object], bpf_measure: Measure, bpf_claim: ClaimCheck
) -> None:
    cost = {
        work: [
            bpf_measure(obj.programs[work], partial(obj.programs[work].test_run, FRAME), batches=9)
            for obj in both
        ]
        for work in WORKS
    }
    times = {work: old.per_run / new.per_run for work, (old, new) in cost.items()}
    assert times["alu"] >= 5
    assert times["hash"] >= 1.5
    bpf_claim(
        {work: ratio >= 5 for work, ratio in times.items()},
        ", ".join(f"{work} {ratio:.1f} times" for work, ratio in times.items()),
        before=cost["alu"][0].per_run / STEPS,
        after=cost["alu"][1].per_run / STEPS,
        unit="instructions a step of arithmetic",
    )


def load(bpf: Loader, *, jit: bool) -> Object:
    """Load the programs with the JIT on or off."""
    SWITCH.write_text(str(int(jit)))
    return filled(bpf)


def filled(bpf: Loader) -> Object:
    """Load the programs, with squares in their maps."""
    obj = bpf.load("work.bpf.c")
    for name in ("array_map", "hash_map"):
        obj.maps[name].update((key, key * key) for key in range(STEPS))
    return obj


def answer(obj: Object, work: str, mark: int) -> int:
    """Run once, and return what came out."""
    obj.programs[work].test_run(FRAME, context={"mark": mark})
    found: int = obj.globals["answer"]
    return found


def expected(work: str, mark: int) -> int:
    """Return what should come out."""
    if work == "helper":
        return mark
    if work != "alu":
        return mark + sum(key * key for key in range(STEPS))
    x = mark
    for _ in range(STEPS):
        x ^= x << 13 & 2**64 - 1
        x ^= x >> 7
        x ^= x << 17 & 2**64 - 1
    return x


def costs(both: tuple[Object, Object], work: str) -> tuple[float, float]:
    """Return the ns of a run, interpreted and compiled: medians of runs that took turns."""
    runs = [[obj.programs[work].test_run(FRAME).duration_ns for obj in both] for _ in range(31)]
    interpreted, compiled = (median(times) for times in zip(*runs, strict=True))
    return interpreted, compiled
