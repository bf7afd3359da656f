"""Two programs held against each other: planted differences, and no false alarm."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import (
    BpfError,
    DifferenceError,
    NotMeasuredError,
    RunError,
    ValueTypeError,
    check_equivalence,
    check_invariants,
    find_worst,
)
from pytest_bpf.fuzz.pair import Pair
from pytest_bpf.fuzz.parallel import Race
from pytest_bpf.fuzz.place import all_subjects
from pytest_bpf.loader import Loader
from tests.planted.needles import NEEDLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Object
    from tests.conftest import Load

HERE = Path(__file__).parent
SUITES = HERE.parent / "bpf_examples"
PLANTED = HERE / "planted" / "filter.bpf.c"
NEEDLES_SOURCE = HERE / "planted" / "needles.bpf.c"


@pytest.fixture(scope="module")
def filters() -> Iterator[tuple[Object, Object]]:
    with Loader() as bpf:
        yield bpf.load(PLANTED), bpf.load(PLANTED, defines={"VARIANTS": 1})


@pytest.mark.parametrize("number", range(1, 31))
def test_every_planted_difference_is_found(filters: tuple[Object, Object], number: int) -> None:
    with pytest.raises(DifferenceError) as caught:
        check_equivalence(*filters, program=("right", f"wrong_{number}"), count=20_000)
    found = re.search(r"found after (\d+) inputs \(seed 0\)$", str(caught.value))
    assert found is not None
    assert int(found[1]) <= 20_000
    assert "the way before:" in str(caught.value)


@pytest.mark.parametrize("what", NEEDLES)
def test_a_needle_is_found_by_every_seed(bpf: Loader, what: str) -> None:
    before, after = (
        bpf.load(NEEDLES_SOURCE, defines={"NEEDLE": NEEDLES[what], "THEN": verdict})
        for verdict in ("XDP_DROP", "XDP_TX")
    )
    for seed in range(20):
        with pytest.raises(DifferenceError, match=f"seed {seed}"):
            check_equivalence(before, after, count=40_000, seed=seed)


def test_a_program_is_the_same_as_itself_and_all_of_it_is_reached(
    filters: tuple[Object, Object],
) -> None:
    result = check_equivalence(*filters, program="right", count=20_000)
    assert result.inputs == 20_000
    for side in (result.before, result.after):
        assert side.reach.blocks == side.reach.all_blocks > 40
        assert side.reach.lines == side.reach.all_lines
        assert 20 < side.insns < 150
    assert "set by the inputs: bpf_get_prandom_u32, bpf_ktime_get_ns" in result.notes
    assert "| instructions verified       | " in str(result)
    assert "| instructions a run, exactly | not measured | not measured | --bpf-exact |" in str(
        result
    )
    with pytest.raises(NotMeasuredError, match="counted in exact mode: --bpf-exact"):
        result.before.instructions  # noqa: B018 (it raises)
    for side, obj in zip((result.before, result.after), filters, strict=True):
        program = obj.programs["right"]
        assert side.verified_insns == program.verified_insns
        assert side.states == program.verifier.total_states > 1
        assert side.stack == program.verifier.stack_depth > 0
        assert side.maps >= sum(table.memlock for table in obj.maps.values()) > 0


def test_a_seed_decides_what_is_found(filters: tuple[Object, Object]) -> None:
    texts = []
    for _ in range(2):
        with pytest.raises(DifferenceError) as caught:
            check_equivalence(*filters, program=("right", "wrong_7"), seed=3)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_the_state_is_put_back(filters: tuple[Object, Object]) -> None:
    with pytest.raises(DifferenceError):
        check_equivalence(*filters, program=("right", "wrong_1"))
    for obj in filters:
        assert not dict(obj.maps["flows"])
        assert not any(obj.maps["protocols"].values())
        assert obj.globals["total"] == 0


def differ(before: str, after: str, **options: Any) -> str:
    with Loader() as bpf, pytest.raises(DifferenceError) as caught:
        check_equivalence(bpf.load(SUITES / before), bpf.load(SUITES / after), **options)
    return str(caught.value)


def test_an_approximation_fails_at_its_first_number() -> None:
    text = differ(
        "arithmetic/before.bpf.c",
        "arithmetic/approximate.bpf.c",
        program=("divide_u64", "multiply_by_1049"),
        ignore=["remainders"],
        inputs=["numbers"],
    )
    assert re.search(r"numbers: \[\d+\] = 2999\n", text)
    assert re.search(r"variable 'quotients'\[\d+\]: before 2, after 3", text)


def test_a_name_that_only_begins_right_is_found() -> None:
    text = differ("inline_functions/after.bpf.c", "inline_functions/prefix.bpf.c", ignore=["last"])
    assert re.search(r"comm: b'nginx.+'\n", text)
    assert "variable 'sends': before 0, after 1" in text


HEAD = """
struct {{ __uint(type, BPF_MAP_TYPE_{}); __uint(max_entries, 4); __type(key, __u32);
    __type(value, {}); }} {} SEC(".maps");
"""
COUNT = """
SEC("xdp") int count(struct xdp_md *ctx) {
    __u32 key = 0; __u64 *value = bpf_map_lookup_elem(&counts, &key);
    if (value) __sync_fetch_and_add(value, 1);
    return XDP_PASS;
}
"""
PLAIN = HEAD.format("ARRAY", "__u64", "counts") + COUNT


def refused(load: Load, before: str, after: str, **options: Any) -> str:
    with pytest.raises((RunError, ValueTypeError)) as caught:
        check_equivalence(load(before), load(after), count=300, **options)
    return str(caught.value)


def test_a_map_that_only_one_has_is_said(load: Load) -> None:
    other = HEAD.format("ARRAY", "__u64", "sums") + PLAIN
    text = refused(load, PLAIN, other)
    assert text.startswith("'sums' is only in the program after; name its counterpart")
    assert check_equivalence(load(PLAIN), load(other), ignore=["sums"], count=300).inputs == 300


def test_maps_of_other_sizes_are_said_and_may_be_compared_by_a_function(load: Load) -> None:
    small = HEAD.format("ARRAY", "__u32", "counts") + COUNT.replace("__u64 *", "__u32 *")
    assert "say by states= how they are compared" in refused(load, PLAIN, small)

    def total(obj: Object) -> int:
        return sum(obj.maps["counts"].values())

    assert check_equivalence(load(PLAIN), load(small), states=(total, total), count=300)
    doubled = PLAIN.replace("value, 1", "value, 2")
    with pytest.raises(DifferenceError, match="states=: before 1, after 2"):
        check_equivalence(load(small), load(doubled), states=(total, total), count=300)


def test_programs_of_other_kinds_are_said(load: Load) -> None:
    tc = PLAIN.replace('"xdp"', '"tc"').replace("xdp_md", "__sk_buff")
    text = refused(load, PLAIN, tc)
    assert text == (
        "program 'count' is of type xdp and 'count' of type sched_cls: they do not get the same "
        "inputs"
    )


def test_a_program_that_cannot_be_test_run_is_said(load: Load) -> None:
    probe = 'SEC("kprobe/do_nanosleep") int probe(void *ctx) { return 0; }'
    says = "program 'probe' (kprobe) cannot be test-run with inputs; "
    stimulus = "give bpf_equivalent a stimulus= that makes it run where it is attached, or "
    assert f"{says}{stimulus}put" in refused(load, probe, probe)
    for ask in (check_invariants, find_worst):
        with pytest.raises(RunError) as caught:
            ask(load(probe))
        assert str(caught.value).startswith(f"{says}put what it does into a function")


SLEEPS = """
struct question { __u64 number, place; };
SEC("syscall") int ask(struct question *question) {
    char read[8];
    if (!bpf_copy_from_user(read, 8, (void *)question->place)) return 1;
    return question->number == 0x123456789 ? 2 : THEN;
}
"""


def test_programs_that_sleep_are_given_inputs_as_well(load: Load) -> None:
    before, after = (load(SLEEPS.replace("THEN", then)) for then in ("3", "3"))
    assert check_equivalence(before, after, count=600).inputs == 600
    wrong = load(SLEEPS.replace("? 2 : THEN", "? 4 : 3"))
    with pytest.raises(DifferenceError, match="before returns 2, after 4"):
        check_equivalence(before, wrong, count=600)


def test_one_object_is_not_two(load: Load) -> None:
    obj = load(PLAIN)
    with pytest.raises(RunError, match="are one object, which has one state: load it twice"):
        check_equivalence(obj, obj)


def test_states_that_differ_to_begin_with_are_said(load: Load) -> None:
    before, after = load(PLAIN), load(PLAIN)
    after.maps["counts"][2] = 7
    with pytest.raises(RunError, match="do not begin with the same state: map 'counts' at 2"):
        check_equivalence(before, after)


def test_what_a_program_takes_from_outside_is_said(load: Load) -> None:
    text = """
SEC("tc") int odd(struct __sk_buff *skb) { return bpf_get_socket_cookie(skb) & 3; }
"""
    again = text.replace("& 3", "& 1")
    with pytest.raises(
        RunError, match=r"answers the same inputs differently.*\(bpf_get_socket_cookie\)"
    ):
        check_equivalence(load(text), load(again))


def test_the_events_of_a_ring_buffer_are_compared(load: Load) -> None:
    text = """
struct {{ __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); }} events SEC(".maps");
SEC("xdp") int send(struct xdp_md *ctx) {{
    __u64 length = ctx->data_end - ctx->data;
    bpf_ringbuf_output(&events, &length, {}, 0);
    return XDP_PASS;
}}
"""
    with pytest.raises(DifferenceError, match="events of 'events': 1 and 1; the first"):
        check_equivalence(load(text.format(8)), load(text.format(4)))
    before = load(text.format(8))
    before.programs["send"].test_run(bytes(60))  # an event that was there before
    assert check_equivalence(before, load(text.format(8)), count=600)


def test_the_events_of_a_perf_buffer_are_compared(load: Load) -> None:
    text = """
struct {{ __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4);
    __uint(value_size, 4); }} events SEC(".maps");
SEC("xdp") int send(struct xdp_md *ctx) {{
    __u64 length = ctx->data_end - ctx->data + {0};
    bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &length, length & 1 ? 8 : 5);
    return XDP_PASS;
}}
"""
    assert check_equivalence(load(text.format(0)), load(text.format(0)), count=2000)
    with pytest.raises(DifferenceError, match="events of 'events': 1 and 1; the first"):
        check_equivalence(load(text.format(0)), load(text.format(1)), count=2000)


READS = """
struct {{ __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, __u32);
    __type(value, __u64); }} sizes SEC(".maps");
const volatile __u64 most = 1 << 20;
SEC("tracepoint/syscalls/sys_enter_read") int on_read(struct trace_event_raw_sys_enter *ctx) {{
    __u32 thread = bpf_get_current_pid_tgid();
    __u64 size = ctx->args[2];
    if (size == {0} || size > most) return 0;
    bpf_map_update_elem(&sizes, &thread, &size, 0);
    return 0;
}}
"""


@pytest.mark.bpf_requires(attach="tracepoint")
def test_a_stimulus_drives_programs_that_cannot_be_test_run(load: Load) -> None:
    with Path("/dev/zero").open("rb", buffering=0) as zeros:

        def reads(data: bytes) -> None:
            zeros.read(int.from_bytes(data[:2], "little"))

        before = load(READS.format(2**30))
        result = check_equivalence(before, load(READS.format(2**30)), stimulus=reads)
        assert result.inputs == 2000
        assert result.after.reach.blocks >= result.after.reach.all_blocks - 1
        assert any(note.startswith("driven by reads, ") for note in result.notes)
        with pytest.raises(DifferenceError) as caught:
            check_equivalence(before, load(READS.format(40_007)), stimulus=reads)
        text = str(caught.value)
        assert re.search(r"map 'sizes' at [0-9a-f]+: before 40007, after nothing", text)
        assert "stimulus: 479c0000" in text
        assert "return 0" in text
        assert not dict(before.maps["sizes"])
        writes = READS.format(2**30).replace("sys_enter_read", "sys_enter_write")
        with pytest.raises(RunError, match="ran for none of 20 inputs: reads does not reach it"):
            check_equivalence(load(writes), load(writes), stimulus=reads, count=20)


@pytest.mark.bpf_requires(attach="tracepoint")
def test_a_stimulus_that_raises_or_does_other_things_each_time_is_said(load: Load) -> None:
    before, after = load(READS.format(2**30)), load(READS.format(77))
    with Path("/dev/zero").open("rb", buffering=0) as zeros:
        sizes = iter([77, 77])

        def once(_: bytes) -> None:
            zeros.read(next(sizes, 1))

        with pytest.raises(RunError, match="once does not do the same for the same input"):
            check_equivalence(before, after, stimulus=once, count=1)
        with pytest.raises(ZeroDivisionError):
            check_equivalence(before, after, stimulus=lambda _: 1 // 0)
        with pytest.raises(RunError, match="a stimulus drives programs of tracing: kprobe, lsm"):
            check_equivalence(load(PLAIN), load(PLAIN), program="count", stimulus=once)
    with pytest.raises(ValueTypeError, match="attach= says where programs run that a stimulus="):
        check_equivalence(before, after, attach=lambda program: program.attach())


@pytest.mark.bpf_requires(attach="tracepoint")
def test_a_difference_that_does_not_always_come_is_shown_as_it_came(load: Load) -> None:
    before, after = load(READS.format(2**30)), load(READS.format(77))
    shown = 0
    with Path("/dev/zero").open("rb", buffering=0) as zeros:
        for period in range(3, 12):
            calls = itertools.count(1)

            def reads(_: bytes) -> None:
                if next(calls) % period:  # noqa: B023 (of this turn)
                    zeros.read(77)

            with pytest.raises((DifferenceError, RunError)) as caught:
                check_equivalence(before, after, stimulus=reads, count=20)
            if isinstance(caught.value, DifferenceError):
                assert "differ: map 'sizes' at " in str(caught.value)
                shown += 1
    assert shown


def test_the_packet_afterwards_is_compared(load: Load) -> None:
    text = """
SEC("tc") int shorten(struct __sk_buff *skb) {
    bpf_skb_change_tail(skb, skb->len > 90 ? 60 : skb->len, 0);
    return 0;
}
"""
    with pytest.raises(DifferenceError, match="the packet of 91 bytes is different from byte 59"):
        check_equivalence(load(text), load(text.replace("? 60", "? 59")))


COUNTS = """
__u64 seen, late;
SEC("xdp") int count(struct xdp_md *ctx)
{
	if (__sync_add_and_fetch(&seen, 1) > LIMIT)
		late = 1;
	return XDP_PASS;
}
"""


def test_two_cpus_that_take_turns_tell_nothing(load: Load) -> None:
    objects = [load(COUNTS, defines={"LIMIT": "1000000"}) for _ in range(2)]
    cpu = min(os.sched_getaffinity(0))
    with all_subjects(objects, [obj.programs["count"] for obj in objects]) as subjects:
        race = Race(Pair(*subjects, renames={}, states=None), (cpu, cpu))
        assert not race.lost_updates([bytes(64)])
    assert race.gap == "the machine was so busy that they took turns"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one CPU")
def test_what_many_runs_change_on_one_cpu_is_not_compared_on_two(load: Load) -> None:
    objects = [load(COUNTS, defines={"LIMIT": limit}) for limit in ("1000000", "300000")]
    notes = check_equivalence(*objects, count=500).notes
    (note,) = (note for note in notes if note.startswith("not compared on two CPUs at once: "))
    assert "after 400000 runs on one CPU" in note
    assert "'late'" in note


def test_the_threads_name_and_its_cpus_are_as_before() -> None:
    name, cpus = Path("/proc/thread-self/comm").read_text(), os.sched_getaffinity(0)
    path = SUITES / "inline_functions" / "after.bpf.c"
    with Loader() as bpf:
        check_equivalence(bpf.load(path), bpf.load(path), count=500)
    assert Path("/proc/thread-self/comm").read_text() == name
    assert os.sched_getaffinity(0) == cpus


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 0}, "count is 0; it is how many inputs to try, at least 1"),
        ({"seconds": -1}, "seconds is -1; it is how long to search, more than 0"),
        ({"corpus": ["text"]}, "an input of the corpus"),
        ({"program": "cuont"}, "'count'"),
        ({"inputs": ["limit"]}, "no global variable 'limit' is in every program"),
        ({"seed": None}, "seed is None; it is a number, and the same one does the same"),
        ({"program": ("count",) * 3}, "it is a name, or (name before, name after)"),
        ({"program": 7}, "program is 7; it is a name, or (name before, name after)"),
        ({"states": (len, 3)}, "it is two functions, of the object before and of that after"),
        ({"states": len}, "it is two functions, of the object before and of that after"),
        (
            {"ignore": ["cuonts"]},
            "ignore: there is no map or variable 'cuonts' in either object; did you mean 'counts'?",
        ),
        ({"renames": {"sums": "counts"}}, "renames: there is no map or variable 'sums' before"),
        ({"renames": {"counts": "sums"}}, "renames: there is no map or variable 'sums' after"),
    ],
)
def test_arguments_that_mean_nothing_are_said(
    load: Load, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(BpfError) as caught:
        check_equivalence(load(PLAIN), load(PLAIN), **options)
    assert says in str(caught.value)
