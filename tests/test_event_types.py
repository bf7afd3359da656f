"""Which type events have, in what order they come, and what is left when a reading fails."""

from __future__ import annotations

import signal
import struct
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import BpfError, MapError, UnknownNameError, ValueTypeError
from pytest_bpf.kernel.ringbuf import perf_rings, ring

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects import Object
    from tests.conftest import Load

RING = (
    'struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");'
)
PERF = (
    "struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); "
    '__uint(value_size, 4); } events SEC(".maps");'
)
TYPES = """
enum tag { OPENED = 1, EXECED = 2, EXITED = 9 };
struct opened { enum tag tag; __u32 fd; };
struct execed { enum tag tag; __u32 pid; char comm[16]; };
"""
BOTH = """
SEC("raw_tp") int both(struct bpf_raw_tracepoint_args *ctx)
{
    struct opened a = {OPENED, 5};
    struct execed b = {EXECED, 77, "bash"};
    PUT(&a, sizeof(a));
    PUT(&b, sizeof(b));
    return 0;
}
SEC("raw_tp") int third(struct bpf_raw_tracepoint_args *ctx)
{
    __u32 c = EXITED;
    PUT(&c, sizeof(c));
    return 0;
}
"""
TO_RING = "\n#define PUT(e, size) bpf_ringbuf_output(&events, e, size, 0)\n"
TO_PERF = "\n#define PUT(e, size) bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, e, size)\n"
MIXED = {"ring": TYPES + RING + TO_RING + BOTH, "perf": TYPES + PERF + TO_PERF + BOTH}


def run(obj: Object, program: str = "both", cpu: int = 0) -> None:
    obj.programs[program].test_run(cpu=cpu)


def names(events: Any) -> list[str]:
    return [type(event).__name__ for event in events]


# -- which type ----------------------------------------------------------------------------------

WRITES = {
    "reserved": """SEC("raw_tp") int put(void *ctx) {
        struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
        if (!e) return 0;
        e->n = 7; e->other = 0; bpf_ringbuf_submit(e, 0); return 0; }""",
    "from the stack": """SEC("raw_tp") int put(void *ctx) {
        struct event e = {7}; struct other o = {1}; bpf_ringbuf_output(&events, &e, sizeof(e), 0);
        return o.m; }""",
    "from a map": """SEC("raw_tp") int put(void *ctx) {
        __u32 zero = 0; struct event *e = bpf_map_lookup_elem(&heap, &zero);
        if (!e) return 0;
        e->n = 7; bpf_ringbuf_output(&events, e, sizeof(*e), 0); return 0; }""",
    "in an inlined function": """static __always_inline void send(struct event *e) {
        bpf_ringbuf_output(&events, e, sizeof(*e), 0); }
        SEC("raw_tp") int put(void *ctx) { struct event e = {7}; send(&e); return 0; }""",
    "in a function of its own": """static __noinline int send(struct event *e) {
        return e ? bpf_ringbuf_output(&events, e, sizeof(*e), 0) : 1; }
        SEC("raw_tp") int put(void *ctx) { struct event e = {7}; return send(&e); }""",
    "from a global variable": """struct event e;
        SEC("raw_tp") int put(struct bpf_raw_tracepoint_args *ctx) {
        e.n = 7; bpf_ringbuf_output(&events, &e, sizeof(e), 0); return 0; }""",
    "through a dynptr": """SEC("raw_tp") int put(void *ctx) {
        struct bpf_dynptr record; struct event e = {7}; struct other o = {1};
        if (!bpf_ringbuf_reserve_dynptr(&events, sizeof(e) + sizeof(o), 0, &record)) {
            bpf_dynptr_write(&record, 0, &e, sizeof(e), 0);
            bpf_dynptr_write(&record, sizeof(e), &o, sizeof(o), 0); }
        bpf_ringbuf_submit_dynptr(&record, 0); return 0; }""",
    "beside one of its size": """SEC("raw_tp") int put(void *ctx) {
        struct twin t = {3}; struct event e = {7};
        bpf_probe_read_kernel(&t, sizeof(t), ctx);
        bpf_ringbuf_output(&events, &e, sizeof(e), 0); return t.n == 1; }""",
}
HEAP = """
struct event { __u64 n; __u32 other; };
struct twin { __u64 n; __u32 m; };
struct other { __u32 m; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
    __type(value, __u64[2]); } heap SEC(".maps");
"""


@pytest.mark.parametrize("way", WRITES)
def test_the_type_is_that_of_what_the_program_writes(load: Load, way: str) -> None:
    obj = load(HEAP + RING + WRITES[way])
    obj.programs["put"].test_run()
    (event,) = obj.maps["events"].events().read(1)
    assert (type(event).__name__, event.n) == ("event", 7)


def test_what_has_no_type_beside_what_has_one_makes_all_of_them_bytes(load: Load) -> None:
    put = WRITES["from the stack"].replace(
        "return o.m",
        "void *raw = bpf_map_lookup_elem(&wide, &o); "
        "if (raw) bpf_ringbuf_output(&events, raw, 40, 0); return o.m",
    )
    wide = """struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
        __uint(key_size, 4); __uint(value_size, 40); } wide SEC(".maps");"""
    obj = load(HEAP + RING + wide + put)
    obj.programs["put"].test_run()
    first, second = obj.maps["events"].events().read(2)
    assert (len(first), len(second)) == (16, 40)


def test_a_number_that_is_written_is_a_number(load: Load) -> None:
    obj = load(
        RING + TO_RING + BOTH[BOTH.index('SEC("raw_tp") int third') :].replace("EXITED", "9")
    )
    reader = obj.maps["events"].events()
    run(obj, "third")
    assert reader.read(1) == [9]


@pytest.mark.parametrize("kind", MIXED)
def test_a_program_that_is_not_loaded_writes_no_events(load: Load, kind: str) -> None:
    other = """SEC("raw_tp") int other(struct bpf_raw_tracepoint_args *ctx) {
        struct execed e = {EXECED, 77, "bash"}; PUT(&e, sizeof(e)); return 0; }"""
    source = MIXED[kind].replace("PUT(&b, sizeof(b));", "__builtin_memset(&b, 0, 0);") + other
    for programs, expected in ((["both"], "opened"), (["other"], "execed")):
        obj = load(source, programs=programs)
        reader = obj.maps["events"].events()
        run(obj, programs[0])
        assert names(reader.read(1)) == [expected]


@pytest.mark.parametrize("choice", [5, {}, [], ["struct opened", 5], {1}, True])
def test_what_names_no_types_is_refused(load: Load, choice: Any) -> None:
    events = load(MIXED["ring"]).maps["events"]
    with pytest.raises(MapError, match="names no types of events: give one name, a list of names"):
        events.events(choice)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": -1}, "'events': count=-1 is no number of events"),
        ({"count": 1.5}, "count=1.5 is no number of events"),
        ({"timeout": -0.1}, "timeout=-0.1 is no number of seconds"),
        ({"timeout": float("nan")}, "timeout=nan is no number of seconds"),
        ({"until": 5}, "until=5 cannot be called: give a function"),
    ],
)
def test_a_wait_that_cannot_be(load: Load, arguments: dict[str, Any], words: str) -> None:
    obj = load(MIXED["ring"], programs=["third"])
    reader = obj.maps["events"].events()
    run(obj, "third")
    with pytest.raises(MapError, match=words):
        reader.read(**arguments)
    assert reader.read(1) == [9]


@pytest.mark.parametrize("kind", MIXED)
def test_of_several_pointers_the_one_with_the_size_counts(load: Load, kind: str) -> None:
    keep = "".join(
        f"const struct {name} *{name}_type __attribute__((unused));"
        for name in ("opened", "execed")
    )
    program = """SEC("raw_tp") int both(void *ctx) {
        struct execed e = {EXECED, 77, "bash"}; PUT(&e, sizeof(e)); return 0; }"""
    buffer, put = (RING, TO_RING) if kind == "ring" else (PERF, TO_PERF)
    obj = load(TYPES + keep + buffer + put + program)
    reader = obj.maps["events"].events()
    run(obj)
    assert names(reader.read(1)) == ["execed"]


def test_an_unknown_type_names_those_that_are_near(load: Load) -> None:
    events = load(MIXED["ring"]).maps["events"]
    with pytest.raises(UnknownNameError, match=r"no type 'struct openedd' .* 'opened'"):
        events.events("struct openedd")


# -- several types -------------------------------------------------------------------------------


def by_function(raw: bytes) -> str | None:
    return {1: "struct opened", 2: "struct execed"}.get(raw[0])


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize(
    ("choice", "tag"),
    [
        (["struct opened", "struct execed"], None),
        ({1: "struct opened", 2: "struct execed"}, "tag"),
        ({"OPENED": "struct opened", "EXECED": "struct execed"}, "tag"),
        (by_function, None),
    ],
    ids=["size", "tag", "enumerator", "function"],
)
def test_each_event_has_a_type_of_its_own(
    load: Load, kind: str, choice: Any, tag: str | None
) -> None:
    obj = load(MIXED[kind])
    reader = obj.maps["events"].events(choice, tag=tag)
    for _ in range(3):
        run(obj)
    events = reader.read(6)
    assert names(events) == ["opened", "execed"] * 3
    assert (events[0].fd, events[1].pid, events[1].comm) == (5, 77, "bash")
    run(obj)
    array = reader.read_array(2)
    assert names(array) == ["opened", "execed"]
    assert array.array_of("struct execed")["pid"].tolist() == [77]
    assert not len(array.array_of("struct none"))
    with pytest.raises(MapError, match="several types: take array_of"):
        _ = array.array


@pytest.mark.parametrize(
    ("choice", "tag", "sentence"),
    [
        ([], None, "names no types"),
        ([3], None, "names no types"),
        ({1: "struct opened"}, None, "say by tag="),
        ({1: "struct opened"}, "tga", "has no member 'tga'"),
        ({1: "struct opened", 2: "struct execed"}, "fd", "execed has no member 'fd'"),
        ({1: "struct execed"}, "comm", "no integer or enum"),
        ("struct opened", "tag", "goes with a mapping"),
        (["struct opened"], "tag", "goes with a mapping"),
        (["struct opened", "struct opened"], None, "cannot be told apart by size"),
        (["struct opened", "struct exced"], None, "no type 'struct exced'"),
    ],
)
def test_a_choice_that_is_not_clear(load: Load, choice: Any, tag: str, sentence: str) -> None:
    obj = load(MIXED["ring"])
    with pytest.raises(BpfError, match=sentence):
        obj.maps["events"].events(choice, tag=tag)
    run(obj)
    assert len(obj.maps["events"].events("__u32").read(2)) == 2


# -- shorter and longer --------------------------------------------------------------------------

FILLED = """
struct args { __u32 count; char text[64]; };
SEC("raw_tp") int put(struct bpf_raw_tracepoint_args *ctx) {
    struct args args = {}; __u32 count = ctx->args[0] & 31;
    args.count = count;
    __builtin_memcpy(args.text, "abcdefghijklmnopqrstuvwxyz", 27);
    bpf_ringbuf_output(&events, &args, sizeof(args.count) + count, 0);
    return 0;
}
"""


@pytest.mark.parametrize("choice", [None, "struct args"])
def test_a_program_that_sends_only_the_filled_part(load: Load, choice: str | None) -> None:
    obj = load(RING + FILLED)
    reader = obj.maps["events"].events(choice)
    for count in (3, 0, 9):
        obj.programs["put"].test_run(context=(count,))
    assert [event.text for event in reader.read(3)] == ["abc", "", "abcdefghi"]
    obj.programs["put"].test_run(context=(2,))
    assert reader.read_array(1).array["text"].tolist() == [b"ab"]


def test_the_bytes_after_the_struct_are_there(load: Load) -> None:
    source = """struct meta { __u32 length; __u32 mark; };
    SEC("tc") int put(struct __sk_buff *skb) {
        struct meta meta = {skb->len, 9};
        __u64 flags = BPF_F_CURRENT_CPU | (__u64)skb->len << 32;
        bpf_perf_event_output(skb, &events, flags, &meta, sizeof(meta));
        return 0; }"""
    obj = load(PERF + source)
    reader = obj.maps["events"].events()
    packet = bytes(range(60))
    for read in (reader.read, reader.read_array):
        obj.programs["put"].test_run(packet)
        events = read(1)
        (meta,) = events
        assert meta == (60, 9)
        assert events.rest(0)[: meta.length] == packet
        assert events.raw(-1)[8:68] == packet


# -- nothing is lost -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MIXED)
def test_events_that_do_not_fit_are_set_aside_for_another_type(load: Load, kind: str) -> None:
    obj = load(MIXED[kind])
    reader = obj.maps["events"].events("struct execed")
    for _ in range(2):
        run(obj)
    with pytest.raises(MapError, match=r"no struct execed \(24 bytes\) \(2 such events\)"):
        reader.read(1)
    assert reader.pending == 2
    assert names(reader.read(1)) == ["execed"] * 2
    run(obj)
    with pytest.raises(MapError, match="no struct execed"):
        reader.read_array(1)
    other = obj.maps["events"].events({1: "struct opened", 2: "struct execed"}, tag="tag")
    assert names(other.read(1)) == ["opened"] * 3 + ["execed"]
    assert (other.lost, other.pending) == (0, 0)


def fail(*_: object) -> Any:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("part", ["until", "failed", "watcher", "function"])
def test_a_reading_that_fails_consumes_nothing(load: Load, kind: str, part: str) -> None:
    obj = load(MIXED[kind])
    events = obj.maps["events"]
    broken = [True]

    def failing(*_: object) -> Any:
        return fail() if broken else None if part == "function" else 0

    types = failing if part == "function" else ["struct opened", "struct execed"]
    reader = events.events(types, failed=failing if part == "failed" else None)
    run(obj)
    watch = events.watching(failing) if part == "watcher" else nullcontext()
    with watch, pytest.raises(RuntimeError, match="on purpose"):
        reader.read(None if part == "until" else 2, until=failing if part == "until" else None)
    assert (reader.consumed, reader._pending) == (0, 2)
    run(obj)
    broken.clear()
    assert len(reader.read(4)) == 4
    assert (reader.consumed, reader.pending, reader.generated) == (4, 0, 4)


def interrupt_after(calls: int) -> Callable[[], None]:
    """Return a function that raises what Ctrl-C does when it is called so many times."""
    left = iter(range(calls))

    def step() -> None:
        if next(left, None) == calls - 1:
            signal.raise_signal(signal.SIGINT)

    return step


@pytest.mark.parametrize("kind", MIXED)
def test_an_interrupt_between_any_two_steps_loses_and_repeats_nothing(
    load: Load, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The steps that a signal can come between: after the copy, and before its end is published."""
    obj = load(MIXED[kind])
    reader = obj.maps["events"].events(["struct opened", "struct execed"])
    module = ring if kind == "ring" else perf_rings
    seen = 0
    for calls in range(1, 9):
        run(obj)
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(module, "fence", interrupt_after(calls))
            seen += len(reader.read())
    seen += len(reader.read())
    assert seen == 16
    assert (reader.consumed, reader.pending) == (16, 0)


class InterruptedList(list[Any]):
    """A list whose ``append`` is the last step before a Ctrl-C."""

    def append(self, item: Any) -> None:
        super().append(item)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", MIXED)
def test_an_interrupt_after_a_batch_was_handed_over_does_not_repeat_it(
    load: Load, kind: str
) -> None:
    obj = load(MIXED[kind])
    reader = obj.maps["events"].events(["struct opened", "struct execed"])
    reader._unread = InterruptedList()
    run(obj)
    with pytest.raises(KeyboardInterrupt):
        reader.read()
    reader._unread = list(reader._unread)
    assert names(reader.read()) == ["opened", "execed"]
    run(obj)
    live = reader._live
    settle = live.settle

    def interrupted(batches: list[Any]) -> None:
        settle(batches)
        if batches:
            signal.raise_signal(signal.SIGINT)

    live.settle = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        reader.read()
    live.settle = settle  # type: ignore[method-assign]
    assert names(reader.read()) == ["opened", "execed"]
    assert (reader.consumed, reader.pending) == (4, 0)


def test_a_reader_with_other_options_has_what_was_left(load: Load) -> None:
    obj = load(MIXED["perf"])
    reader = obj.maps["events"].events(["struct opened", "struct execed"])
    run(obj)
    with pytest.raises(RuntimeError):
        reader.read(until=fail)
    run(obj)
    assert (
        len(obj.maps["events"].events(["struct opened", "struct execed"], every=0.01).read()) == 4
    )


# -- order ---------------------------------------------------------------------------------------


def test_a_perf_buffer_is_in_order_of_time_when_asked(load: Load) -> None:
    source = """struct event { __u64 n; }; __u64 n;
    SEC("raw_tp") int put(struct bpf_raw_tracepoint_args *ctx) {
        struct event e = {n++};
        return bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &e, sizeof(e)); }"""
    obj = load(PERF + source)
    reader = obj.maps["events"].events(by_time=True)
    cpus = len(reader._live._rings)  # type: ignore[attr-defined]
    seen: list[int] = []

    def work() -> None:
        for at in range(400):
            obj.programs["put"].test_run(cpu=at % cpus)

    worker = threading.Thread(target=work)
    worker.start()
    while len(seen) < 400:
        seen += [event.n for event in reader.read(1, timeout=30)]
    worker.join()
    assert seen == list(range(400))


# -- types of an object --------------------------------------------------------------------------


def test_bytes_decode_and_encode_as_any_type(load: Load) -> None:
    obj = load(MIXED["ring"])
    execed = obj.types["struct execed"]
    raw = struct.pack("=II16s", 2, 77, b"bash")
    assert (execed.name, execed.size) == ("struct execed", 24)
    assert execed.members == {"tag": 0, "pid": 4, "comm": 8}
    value = execed.decode(raw + b"more")
    assert (value.tag.name, value.pid, value.comm) == ("EXECED", 77, "bash")
    assert (
        execed.encode(value) == execed.encode({"tag": "EXECED", "pid": 77, "comm": "bash"}) == raw
    )
    assert execed.dtype.itemsize == 24
    assert obj.types["enum tag"].decode(b"\x09\0\0\0").name == "EXITED"
    assert "struct opened" in obj.types
    assert "struct closed" not in obj.types
    with pytest.raises(ValueTypeError, match="struct execed has 24 bytes"):
        execed.decode(raw, 8)
    with pytest.raises(ValueTypeError, match="struct execed"):
        execed.encode({"pid": "many"})


def test_a_type_that_only_the_source_has(load: Load) -> None:
    obj = load(MIXED["ring"] + "struct nowhere { __u32 a, b; };")
    assert obj.types["struct nowhere"].decode(b"\1\0\0\0\2\0\0\0") == (1, 2)
    obj.close()
    with pytest.raises(BpfError, match="is closed"):
        _ = obj.types["struct nowhere"]
