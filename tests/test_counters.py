"""Programs with counters between their instructions do what the programs do."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import LoadError, VerifierError
from pytest_bpf.kernel.programs import counters
from pytest_bpf.kernel.programs.assembly import CLOCK
from pytest_bpf.kernel.programs.flow import Flow
from pytest_bpf.loader import Loader
from pytest_bpf.objects.programs.origins import origins
from pytest_bpf.objects.programs.twin import Twin
from pytest_bpf.traffic.packets import tcp_frame, udp_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Object, Program
    from tests.conftest import Load

SOURCES = sorted((Path(__file__).parent.parent / "bpf_examples").glob("*/*.bpf.c"))
MODES: tuple[counters.Mode, ...] = ("hit", "count", "operands")
PACKETS = int(os.environ.get("PYTEST_BPF_PACKETS", "60"))
"""Packets that each program gets; the claim is made of 400."""


@pytest.fixture(scope="module")
def pairs() -> Iterator[list[tuple[Object, Object]]]:
    """Every object of the reference suites that loads, twice."""
    loaded = []
    with Loader() as bpf:
        for source in SOURCES:
            try:
                loaded.append((bpf.load(source), bpf.load(source)))
            except VerifierError:
                assert source.name == "reread.bpf.c"  # shows what the verifier refuses
        yield loaded


@pytest.fixture
def one_cpu() -> Iterator[None]:
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


def test_every_program_of_the_suites_loads_in_every_build(
    pairs: list[tuple[Object, Object]],
) -> None:
    programs = [program for first, _ in pairs for program in first.programs.values()]
    assert len(programs) > 90
    for program in programs:
        for mode in MODES:
            with Twin(program, mode) as twin:
                info = twin.program.info
                assert info.nr_func_info == program.info.nr_func_info
                assert info.nr_line_info > 0
                found = origins(program.content, program.name, twin.build.flow)
                assert found is not None
                assert set(found.functions) == set(twin.build.flow.functions)


def packets(seed: int, count: int) -> Iterator[bytes]:
    draw = random.Random(seed)
    for _ in range(count):
        frame = bytearray(draw.choice((udp_frame, tcp_frame))(dport=draw.choice((53, 80, 443))))
        for _ in range(draw.randrange(4)):
            frame[draw.randrange(12, len(frame))] = draw.randrange(256)
        yield bytes(frame[: draw.choice((len(frame), draw.randrange(34, len(frame) + 1)))])


def content(obj: Object) -> dict[str, Any]:
    readable = ("hash", "array", "percpu_array", "percpu_hash", "lru_hash", "lpm_trie")
    return {n: dict(m.items()) for n, m in obj.maps.items() if m.type in readable}


def spilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let counters put registers aside wherever there are some, though others hold nothing."""
    free = Flow.free

    def few(code: Flow, at: int) -> list[int]:
        in_use = code.certain[at] & code.live[at] & 0x3FF
        return free(code, at)[: max(0, 2 - in_use.bit_count())]

    monkeypatch.setattr(Flow, "free", few)


@pytest.mark.usefixtures("one_cpu")
@pytest.mark.parametrize("mode", [*MODES, "spilled"])
def test_verdicts_packets_and_maps_are_the_same(
    pairs: list[tuple[Object, Object]], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "spilled":
        spilled(monkeypatch)
    build: Any = "count" if mode == "spilled" else mode
    runs = timed = spills = 0
    for plain, counted in pairs:
        clocks = 0
        for name, program in plain.programs.items():
            kind = program.kind.test_run
            if kind not in {"packet", "arguments"} or takes_long(program):
                continue
            with Twin(counted.programs[name], build) as twin:
                spills += twin.build.spills
                for packet in packets(runs, PACKETS):
                    given: Any = (
                        {"data": packet}
                        if kind == "packet"
                        else {"context": [len(packet) + packet[-1]] * 6}
                    )
                    first, second = program.test_run(**given), twin.program.test_run(**given)
                    assert (first.retval, first.data_out) == (second.retval, second.data_out)
                    runs += 1
                assert any(bytes(twin.counters)) or build == "operands"
                clocks += any(
                    i.code == 0x85 and i.value == CLOCK for i in twin.build.flow.instructions
                )
        if clocks:
            assert [len(m) for m in content(plain).values()] == [
                len(m) for m in content(counted).values()
            ]
        else:
            assert content(plain) == content(counted)
            assert dict(plain.globals) == dict(counted.globals)
        timed += bool(clocks)
    assert runs > 20 * PACKETS
    assert timed < 4
    assert (spills > 100) == (mode == "spilled")


def takes_long(program: Program) -> bool:
    """Say whether a run is one of many thousand steps, which are not taken once more for each."""
    return program.verified_insns > 60_000


TEXT = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
    __type(key, __u32); __type(value, __u64); } sums SEC(".maps");
static long add(__u32 at, __u64 *sum) { *sum += at; return at == 3; }
static __attribute__((noinline)) int classify(__u32 length) {
    if (length > 100)
        return XDP_DROP;
    return XDP_PASS;
}
SEC("xdp") int sum(struct xdp_md *ctx) {
    __u64 total = 0;
    __u32 key = 0;
    bpf_loop(10, add, &total, 0);
    bpf_map_update_elem(&sums, &key, &total, 0);
    return classify(ctx->data_end - ctx->data);
}
"""


def test_counts_are_those_of_the_loop_and_of_its_callback(load: Load) -> None:
    obj = load(TEXT)
    with Twin(obj.programs["sum"], "count") as twin:
        assert twin.program.test_run(bytes(64)).retval == 2
        counts = dict(zip(twin.build.places, twin.counts(), strict=True))
        ways = counters.outcomes(twin.build, twin.counts())
        starts = twin.build.flow.functions
        assert sorted(counts[start] for start in starts) == [1, 1, 4]
        assert (1, 0) in ways.values() or (0, 1) in ways.values()
        twin.clear()
        assert twin.program.test_run(bytes(200)).retval == 1
        assert counters.outcomes(twin.build, twin.counts()) != ways
    assert obj.maps["sums"][0] == 6


def test_operands_are_what_the_program_compared(load: Load) -> None:
    obj = load(TEXT)
    with Twin(obj.programs["sum"], "operands") as twin:
        assert twin.program.test_run(bytes(77)).retval == 2
        assert any(77 in (left & 0xFFFFFFFF, right) for left, right in twin.operands())


def test_a_program_of_a_descriptor_is_refused(load: Load) -> None:
    program = load(TEXT).programs["sum"]
    other = type(program).from_fd(os.dup(program.fd))
    with pytest.raises(LoadError, match="'sum' was not loaded from an object of this process"):
        Twin(other, "hit")


def test_a_twin_leaves_nothing_open(load: Load) -> None:
    program = load(TEXT).programs["sum"]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for mode in MODES:
        Twin(program, mode).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


PINNED = """
SEC("xdp") int late(struct xdp_md *ctx) {
    return bpf_ktime_get_ns() == 77 && bpf_get_prandom_u32() == 5 ? XDP_DROP : XDP_PASS;
}
"""


def test_a_clock_and_a_die_answer_what_they_are_told(load: Load) -> None:
    program = load(PINNED).programs["late"]
    clock, random_number = 5, 7
    for mode in MODES:
        with Twin(program, mode, (clock, random_number)) as twin:
            assert twin.program.test_run(bytes(64)).retval == 2
            twin.set_pin(clock, 77)
            twin.set_pin(random_number, 5)
            assert twin.program.test_run(bytes(64)).retval == 1
