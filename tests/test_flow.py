"""Instructions -> blocks, functions and registers, and the builds with counters: bytes alone."""

from __future__ import annotations

import pytest

from pytest_bpf.kernel.programs import assembly, counters
from pytest_bpf.kernel.programs.flow import Insn, flow, pack, unpack

# r6 = r1; r0 = 0; if r6 == 5 goto +2; r0 = 1; goto +0; exit
BRANCH = (
    assembly.copy(6, 1)
    + assembly.move(0, 0)
    + pack([Insn(0x15, 6, 0, 2, 5)])
    + assembly.move(0, 1)
    + pack([Insn(0x05, 0, 0, 0, 0)])
    + assembly.leave()
)


def registers(bits: int) -> list[int]:
    return [register for register in range(11) if bits >> register & 1]


def test_blocks_begin_where_jumps_go_and_behind_them() -> None:
    program = flow(BRANCH)
    assert program.blocks == (0, 3, 5)
    assert program.targets == {5}
    assert program.functions == (0,)
    assert [program.block_of(at) for at in range(6)] == [0, 0, 0, 1, 1, 2]


def test_registers_live_until_their_last_reading() -> None:
    program = flow(BRANCH)
    assert registers(program.live[0]) == [1]
    assert registers(program.live[1]) == [6]
    assert registers(program.live[2]) == [0, 6]
    assert registers(program.live[5]) == [0]
    assert program.free(2) == [1, 2, 3, 4, 5, 7, 8, 9]


def test_a_constant_of_64_bits_is_two_and_no_jump() -> None:
    code = assembly.load_map(1, 7) + assembly.RETURN_0
    program = flow(code)
    assert program.second == {1}
    assert program.blocks == (0,)


def test_a_call_reads_no_argument_that_nobody_wrote() -> None:
    code = assembly.move(2, 1) + assembly.call(7) + assembly.leave()
    program = flow(code)
    assert registers(program.live[1]) == [1, 2]
    assert registers(program.certain[2]) == [0, 10]


def test_what_one_way_alone_writes_is_not_certain() -> None:
    code = pack([Insn(0x15, 1, 0, 1, 0)]) + assembly.move(7, 1) + assembly.RETURN_0
    program = flow(code)
    assert 7 not in registers(program.certain[2])
    assert 1 in registers(program.certain[2])


def test_functions_begin_where_calls_and_addresses_say() -> None:
    # call +1; exit; (function) r0 = r1; exit
    code = pack([Insn(0x85, 0, 1, 0, 1)]) + assembly.leave()
    code += assembly.copy(0, 1) + assembly.leave()
    program = flow(code)
    assert program.functions == (0, 2)
    assert program.blocks == (0, 1, 2)
    assert program.function_of(3) == 2
    assert registers(program.live[2]) == [1]


def test_a_jump_out_of_the_program_is_refused() -> None:
    with pytest.raises(ValueError, match="no instruction 9 of 2"):
        flow(pack([Insn(0x05, 0, 0, 8, 0)]) + assembly.leave())


def test_instructions_survive_unpacking() -> None:
    assert pack(unpack(BRANCH)) == BRANCH


def run(code: bytes, argument: int, sizes: dict[int, int]) -> tuple[int, dict[int, int]]:
    """Run instructions as few as these tests have; return r0 and what was written to the map."""
    state = [0] * 11
    state[1], at, memory = argument, 0, dict.fromkeys(sizes, 0)
    program = unpack(code)
    while True:
        insn = program[at]
        other = state[insn.of] if insn.code & 8 else insn.value
        at += 1
        match insn.code:
            case 0x18:
                state[insn.to], at = program[at].value, at + 1
            case 0xB7 | 0xBF:
                state[insn.to] = other
            case 0x72:
                memory[state[insn.to]] = insn.value
            case 0xDB:
                memory[state[insn.to]] += state[insn.of]
            case 0x7B:
                memory[state[insn.to] + insn.offset] = state[insn.of]
            case 0x7A:
                memory[state[insn.to] + insn.offset] = insn.value
            case 0x15:
                at += insn.offset if state[insn.to] == other else 0
            case 0x05:
                at += insn.offset
            case 0x95:
                return state[0], memory
            case _:
                raise AssertionError(f"instruction {insn} is not among those of these tests")


@pytest.mark.parametrize(
    ("argument", "result", "hit"), [(5, 0, [1, 0, 1, 1]), (6, 1, [1, 1, 1, 0])]
)
def test_hits_are_written_where_the_program_goes(
    argument: int, result: int, hit: list[int]
) -> None:
    made = counters.build(BRANCH, "hit", 3)
    assert made.size == len(made.places) == 4
    assert made.taken == {2: 3}  # the way of the jump to a block that is entered otherwise, too
    answer, memory = run(made.code, argument, dict.fromkeys(range(4), 0))
    assert answer == result
    assert list(memory.values()) == hit


def test_operands_are_those_of_the_jump() -> None:
    made = counters.build(BRANCH, "operands", 3)
    assert made.places == (2,)
    _, memory = run(made.code, 6, {0: 0, 8: 0})
    assert memory == {0: 6, 8: 5}


def test_a_shared_fall_through_has_a_counter_of_its_own() -> None:
    # if r1 == 5 goto A; if r1 == 6 goto A; A: r0 = 0; exit
    code = pack([Insn(0x15, 1, 0, 1, 5), Insn(0x15, 1, 0, 0, 6)]) + assembly.RETURN_0
    made = counters.build(code, "count", 3)
    assert made.places == (0, 1, 2, 2)
    assert made.edges == {2: 3}
    for argument, jumped in ((5, {0: (1, 0), 1: (0, 0)}), (6, {0: (0, 1), 1: (1, 0)})):
        _, memory = run(made.code, argument, {8 * n: 0 for n in range(4)})
        assert counters.outcomes(made, list(memory.values())) == jumped
    _, memory = run(made.code, 7, {8 * n: 0 for n in range(4)})
    assert counters.outcomes(made, list(memory.values())) == {0: (0, 1), 1: (0, 1)}


def test_jumps_that_would_not_reach_are_refused() -> None:
    far = b"".join(pack([Insn(0x15, 1, 0, 0, n)]) for n in range(9000))
    code = pack([Insn(0x15, 1, 0, 9000, 5)]) + far + assembly.RETURN_0
    with pytest.raises(counters.TooLongError, match="jumps reach 32768"):
        counters.build(code, "count", 3)


def test_registers_are_put_aside_where_none_is_free() -> None:
    fill = b"".join(assembly.move(register, register) for register in range(10))
    sums = b"".join(assembly.plus(0, register) for register in range(1, 10))
    slot = assembly.store(-16, 1)
    code = fill + slot + pack([Insn(0x15, 1, 0, 0, 5)]) + sums + assembly.leave()
    made = counters.build(code, "count", 3)
    assert made.spills == 2  # the block behind the jump, and the way to it
    saves = [i for i in unpack(made.code) if i.code == 0x7B and i.to == 10]
    assert {i.offset for i in saves} == {-24, -32}
