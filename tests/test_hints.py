"""Hints are decided from evidence alone: no kernel, no privilege."""

from __future__ import annotations

import pytest

from pytest_bpf.kernel.layers.packet import Packet
from pytest_bpf.plugin.artifacts.evidence import (
    Bound,
    Code,
    Drop,
    ElementChange,
    Evidence,
    Failure,
    Hook,
    InterfaceState,
    MapState,
    ProgramState,
    TailCall,
)
from pytest_bpf.plugin.artifacts.evidence import TestRun as Run
from pytest_bpf.plugin.artifacts.hints import MOST, RULES, hints
from pytest_bpf.plugin.artifacts.section import lines

IDLE = ProgramState("filter", "xdp", "a.bpf.c", runs=0)
ATTACHED = ProgramState("filter", "xdp", hooks=(Hook("veth0 of a", "a", "veth0"),), runs=0)


def test_nothing_to_say_of_nothing() -> None:
    assert hints(Evidence()) == []
    assert lines(Evidence()) == []


def test_an_idle_program_is_not_blamed_when_it_is_called_or_replaces_another() -> None:
    assert "never attached" in hints(Evidence(programs=(IDLE,)))[0]
    jumps = MapState("jumps", "prog_array", slots=(1,), max_entries=4)
    assert not hints(Evidence(programs=(IDLE,), maps=(jumps,)))
    other = ProgramState("other", "tc", runs=0)
    (both,) = hints(Evidence(programs=(IDLE, other)))
    assert both.startswith("programs 'filter', 'other' were never attached")
    assert not hints(Evidence(programs=(ProgramState("ext", "ext", needs_hook=False, runs=0),)))
    ran = ProgramState("filter", "xdp", runs=3)
    assert not hints(Evidence(programs=(ran,)))


def test_a_program_is_in_the_wrong_namespace_only_if_packets_came_in_elsewhere() -> None:
    elsewhere = InterfaceState("b", "veth0", rx=5, tx=0)
    here = InterfaceState("a", "veth0", rx=0, tx=5)
    quiet = InterfaceState("b", "veth0", rx=0, tx=0)
    assert (
        "another namespace"
        in hints(Evidence(programs=(ATTACHED,), interfaces=(here, elsewhere)))[0]
    )
    assert not hints(Evidence(programs=(ATTACHED,), interfaces=(here, quiet)))


def test_an_interface_of_pytest_s_own_namespace_is_none_of_the_test_s_places() -> None:
    outside = ProgramState("filter", "xdp", hooks=(Hook("lo", "", "lo"),), runs=7)
    of_test = InterfaceState("a", "veth0", rx=5, tx=0)
    (hint,) = hints(Evidence(programs=(outside,), interfaces=(of_test,)))
    assert "to lo of the namespace that pytest runs in" in hint
    assert not hints(Evidence(programs=(outside,)))


def test_a_drop_is_explained_and_says_that_nothing_reached_the_program() -> None:
    (hint,) = hints(Evidence(programs=(ATTACHED,), drops=(Drop("a", "UDP_CSUM", 1),)))
    assert hint.startswith("no packet reached 'filter': 1 packet dropped in 'a' by UDP_CSUM: ")


def test_an_index_that_is_computed_is_told_from_a_constant_one() -> None:
    jumps = MapState("jumps", "prog_array", slots=(0, 2), max_entries=4)

    def of(index: int | None) -> list[str]:
        code = Code(tail_calls=(TailCall("jumps", index, "a.bpf.c:3"),))
        return hints(
            Evidence(programs=(ProgramState("p", "xdp", runs=1, code=code),), maps=(jumps,))
        )

    assert "tail-calls index 1 of 'jumps' (a.bpf.c:3), which is empty" in of(1)[0]
    assert "by an index that it computes; filled are 0, 2 of 4" in of(None)[0]
    assert not of(2)


def test_a_program_that_swaps_bytes_may_compare_with_a_port_as_the_host_has_it() -> None:
    def of(*, swaps: bool, line: str = "if (port == 8080)") -> list[str]:
        code = Code(bounds=(Bound(8080, "a.bpf.c:7", line),), swaps_bytes=swaps)
        program = ProgramState("p", "xdp", runs=1, code=code)
        return hints(Evidence(Failure("assert 1 == 2, port 8080"), programs=(program,)))

    assert "bpf_htons(8080)" in of(swaps=False)[0]
    assert not of(swaps=True)
    assert not of(swaps=False, line="if (count > 8080)")


def test_one_cpu_is_only_named_where_a_value_of_another_was_looked_at() -> None:
    change = ElementChange("[0]", "0", "PerCPU(0, 5)", numbers=(0, 0, 5), cpus=(1,))
    counts = MapState("counts", "percpu_array", changes=(change,), changed=1, per_cpu=True)
    zero = Evidence(Failure("assert 0 == 5"), maps=(counts,), cpus=2)
    assert hints(zero)[0].startswith("it ran on CPU 1 only")
    assert not hints(Evidence(Failure("assert 5 == 6"), maps=(counts,), cpus=2))


def test_statistics_are_only_blamed_for_a_figure_that_was_asked_for() -> None:
    uncounted = ProgramState("p", "xdp", test_runs=(Run(Packet(b""), "", "XDP_PASS"),))
    asked = Failure("NotMeasuredError: run_cnt is not counted, the statistics are off")
    assert hints(Evidence(asked, (uncounted,))) == [
        "statistics were off: the runs of p were not counted"
    ]
    assert not hints(Evidence(Failure("assert 1 == 2"), (uncounted,)))


def test_there_are_a_few_hints_at_most() -> None:
    full = tuple(MapState(f"m{n}", "hash", entries=4, max_entries=4) for n in range(99))
    assert len(hints(Evidence(maps=full))) == MOST


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_is_silent_without_evidence(rule: object) -> None:
    assert callable(rule)
    assert not list(rule(Evidence()))


def test_many_programs_that_nothing_ran_are_one_row_beside_one_that_ran() -> None:
    idle = tuple(ProgramState(f"p{n}", "xdp", runs=0) for n in range(9))
    ran = ProgramState("q", "xdp", hooks=(Hook("veth0 of a", "a", "veth0"),), runs=7)
    rows = lines(Evidence(programs=(*idle, ran)))
    assert rows[1:3] == [
        "program q (xdp): attached to veth0 of a, ran 7 times",
        "9 other programs: not attached, and not run",
    ]
    assert sum(row.startswith("program ") for row in lines(Evidence(programs=idle))) == 9
