"""What lines cost the verifier: every instruction that it processed is on some line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bpf_examples
from pytest_bpf.coverage import verifier_costs as module
from pytest_bpf.coverage.verifier_costs import verifier_costs
from pytest_bpf.errors import LoadError, UnavailableError
from pytest_bpf.loader import Loader
from tests.conftest import HEADER

if TYPE_CHECKING:
    from tests.conftest import Load

FIRST = HEADER.count("\n") + 1

PROGRAM = """\
static __noinline int add(int a, int b)
{
	return a + b;
}
static long step(__u64 index, void *context)
{
	*(int *)context += index;
	return 0;
}
SEC("socket")
int program(struct __sk_buff *skb)
{
	int i, total = 0;
	for (i = 0; i < 16; i++)
		if (skb->len >> i & 1)
			total = add(total, skb->mark);
	bpf_loop(4, step, &total, 0);
	return total;
}
"""


def test_every_instruction_is_on_a_line(load_once: Load) -> None:
    program = load_once(PROGRAM).programs["program"]
    program_id = program.id
    costs = verifier_costs(program)
    assert costs.insns == program.verified_insns == sum(cost.insns for cost in costs)
    by_line = {cost.line - FIRST + 1: cost for cost in costs if cost.file.endswith(".c")}
    assert by_line[15].paths >= 15
    assert by_line[15].insns > by_line[18].insns
    assert {3, 7, 16}.issubset(by_line)
    assert any(cost.known for cost in costs)
    assert "if (skb->len >> i & 1)  (" in str(costs)
    assert program.id == program_id


def test_a_log_that_does_not_fit_is_asked_for_again(
    load_once: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load_once(PROGRAM).programs["program"]
    whole = verifier_costs(program)
    monkeypatch.setattr(module, "BYTES_OF_LOG", 0)
    assert verifier_costs(program) == whole
    monkeypatch.setattr(module, "LONGEST_LOG", 4096)
    with pytest.raises(LoadError, match="the verifier's log is longer than 1 GiB"):
        verifier_costs(program)


@pytest.mark.parametrize("name", ["lru/after", "per_cpu/after", "xdp_filter/filter"])
def test_programs_of_the_suites(name: str) -> None:
    source = Path(bpf_examples.__file__).parent / f"{name}.bpf.c"
    with Loader() as loader:
        for program in loader.load(source).programs.values():
            assert verifier_costs(program).insns == program.verified_insns


def test_without_lines_it_is_not_known() -> None:
    with Loader() as loader:
        text = 'SEC("socket")\nint program(struct __sk_buff *skb)\n{\n\treturn 0;\n}\n'
        program = loader.load(HEADER + text, cflags=["-g0"]).programs["program"]
        with pytest.raises(UnavailableError, match="no line information; compile it with -g"):
            verifier_costs(program)
