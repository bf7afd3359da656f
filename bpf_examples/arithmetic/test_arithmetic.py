"""Division by a constant: which replacements are exact, and where the others go wrong.

A program is a function here: numbers go in by a global array, it runs once by ``test_run``, and
the results come out by another. No hook, no traffic, thousands of numbers a call.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import DifferenceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_bpf import Loader, Object
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.costs.run import Measure
    from pytest_bpf.plugin.fuzzing import CheckEquivalence, FindWorst

pytestmark = pytest.mark.bpf_requires(program_type="syscall")

BATCH = 4096
WIDTHS = ["divide_u32", "divide_u64"]
OVERFLOW = 2**64 // 1049 + 1
"""The first number whose product with 1049 does not fit 64 bits: about 1.76e16."""


@pytest.mark.parametrize("bits", [32, 64])
def test_exact_replacement_equals_division(bpf: Loader, bits: int) -> None:
    before, after = bpf.load("before.bpf.c"), bpf.load("after.bpf.c", programs=[f"divide_u{bits}"])
    for numbers in batches(bits):
        expected = [divmod(n, 1000) for n in numbers]
        for obj in (before, after):
            quotients = run(obj, f"divide_u{bits}", numbers)
            results = zip(quotients, obj.globals["remainders"], strict=True)
            assert list(results) == expected


@pytest.mark.bpf_requires(helper="bpf_loop")
def test_exact_replacement_is_right_for_every_u32(bpf: Loader) -> None:
    after = bpf.load("after.bpf.c")
    after.programs["prove_u32"].test_run()
    assert after.globals["mistakes"] == 0


def test_approximation_first_goes_wrong_at_2999(bpf: Loader) -> None:
    approximate = bpf.load("approximate.bpf.c")
    quotients = run(approximate, "multiply_by_1049", range(BATCH))
    wrong = [n for n in range(BATCH) if quotients[n] != n // 1000]
    assert wrong[0] == 2999
    assert quotients[2999] == 3


def test_approximation_drifts_and_overflows(bpf: Loader) -> None:
    approximate = bpf.load("approximate.bpf.c")
    numbers = batch([10**9, OVERFLOW - 1, OVERFLOW])
    billion, largest, overflown, *_ = run(approximate, "multiply_by_1049", numbers)
    assert billion / (10**9 // 1000) == pytest.approx(1.0004, abs=1e-5)
    assert largest > 10**13
    assert overflown == 0  # 17 trillion, it should be


def test_shift_by_10_is_two_percent_off(bpf: Loader) -> None:
    approximate = bpf.load("approximate.bpf.c")
    million, *_ = run(approximate, "shift_by_10", batch([10**6]))
    assert million == 10**6 // 1024 == 976  # 1000, it should be


@pytest.mark.bpf_claim(
    "a division is replaced by multiplying and shifting: cheaper, and as good",
    row=4,
    verdict="holds in part",
)
@pytest.mark.bpf_requires(exact=True)
def test_cheaper_and_as_good(bpf: Loader, bpf_measure: Measure, bpf_claim: ClaimCheck) -> None:
    before, after = bpf.load("before.bpf.c"), bpf.load("after.bpf.c", programs=WIDTHS)
    short = bpf.load("approximate.bpf.c")
    old32, old64, new32, new64, shift, multiply = (
        bpf_measure(program, program.test_run, batches=9).per_run / BATCH
        for obj in (before, after, short)
        for program in obj.programs.values()
    )
    expected = [n // 1000 for n in range(BATCH)]
    bpf_claim(
        {
            "exact, 32 bits": new32 < old32,
            "exact, 64 bits": new64 < old64,
            "* 1049 >> 20 is cheaper": multiply < old64,
            "* 1049 >> 20 is as good": run(short, "multiply_by_1049", range(BATCH)) == expected,
            ">> 10 is cheaper": shift < old64,
            ">> 10 is as good": run(short, "shift_by_10", range(BATCH)) == expected,
        },
        f"u64 {old64:.3g} → {new64:.3g}, * 1049 >> 20 {multiply:.3g}, >> 10 {shift:.3g}",
        before=old32,
        after=new32,
        unit="instructions a number, u32",
    )


def run(obj: Object, program: str, numbers: Sequence[int]) -> Sequence[int]:
    """Return the quotients of `BATCH` numbers."""
    obj.globals["numbers"] = numbers
    obj.programs[program].test_run()
    quotients: Sequence[int] = obj.globals["quotients"]
    return quotients


def batch(numbers: Sequence[int]) -> list[int]:
    """Return the numbers, filled up with zeros to a batch."""
    return [*numbers, *[0] * (BATCH - len(numbers))]


def batches(bits: int, count: int = 4) -> list[list[int]]:
    """Return edges (of bytes, bits and thousands), then numbers of all lengths by chance."""
    random = Random(bits)  # the same in every run
    top = 2**bits
    corners = [0, top, *(2**i for i in range(bits)), *(10**i for i in range(3, bits * 3 // 10))]
    corners += [1000 * random.randrange(top // 1000) for _ in range(500)]
    edges = {corner + step for corner in corners for step in (-1, 0, 1)}
    numbers = sorted(n for n in edges if 0 <= n < top)
    while len(numbers) < count * BATCH:
        numbers.append(random.getrandbits(random.randint(1, bits)))
    return [numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH)]


@pytest.mark.parametrize("program", WIDTHS)
def test_the_exact_replacement_is_the_same_for_every_input_tried(
    bpf_equivalent: CheckEquivalence, program: str
) -> None:
    result = bpf_equivalent(
        "before.bpf.c",
        "after.bpf.c",
        program=program,
        inputs=["numbers"],
        ignore=["mistakes"],
        count=1500,
    )
    assert result.after.reach.blocks == result.after.reach.all_blocks


@pytest.mark.parametrize(
    ("program", "first"), [("multiply_by_1049", "= 2999\n"), ("shift_by_10", "= 1000\n")]
)
def test_a_shortcut_is_found_without_a_hint(
    bpf_equivalent: CheckEquivalence, program: str, first: str
) -> None:
    with pytest.raises(DifferenceError) as found:
        bpf_equivalent(
            "before.bpf.c",
            "approximate.bpf.c",
            program=("divide_u64", program),
            inputs=["numbers"],
            ignore=["remainders"],
        )
    assert first in str(found.value)


@pytest.mark.bpf_requires(exact=True)
@pytest.mark.bpf_claim(
    "the replacement of a division costs no more in the worst case",
    row=4,
    verdict="holds in part",
)
def test_the_worst_case(bpf_worst: FindWorst, bpf_claim: ClaimCheck) -> None:
    (old32, old64), (new32, new64) = (
        [
            bpf_worst(f"{when}.bpf.c", program=name, inputs=["numbers"], count=300).instructions
            / BATCH
            for name in ("divide_u32", "divide_u64")
        ]
        for when in ("before", "after")
    )
    bpf_claim(
        {"32 bits": new32 <= old32, "64 bits": new64 <= old64},
        f"the dearest batch found, u32; u64 {old64:.3g} → {new64:.3g}",
        before=old32,
        after=new32,
        unit="instructions a number",
    )
