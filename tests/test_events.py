"""Events of ring and perf buffers: typed, waited for, counted."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import MapError, UnknownNameError
from pytest_bpf.objects.events.event_types import RawEvent

if TYPE_CHECKING:
    from pytest_bpf.objects import Object, Program
    from tests.conftest import Load

EVENT = "struct event { __u32 n; char name[8]; };"
RING = "struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); %s }"
PERF = "struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); %s }"
SIZES = "__uint(key_size, 4); __uint(value_size, 4);"
TYPED = "__type(key, __u32); __type(value, struct event);"

PUT_RING = """
const volatile int step = 1; __u64 failed, discard, flags, next;
SEC("raw_tp") int put(struct bpf_raw_tracepoint_args *ctx) {
    for (int i = 0; i < 200; i++) {
        if (i >= ctx->args[0]) break;
        struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
        if (!e) { failed++; continue; }
        e->n = next++; __builtin_memcpy(e->name, "event", 6);
        if (discard) bpf_ringbuf_discard(e, flags); else bpf_ringbuf_submit(e, flags);
    }
    return 0;
}
SEC("raw_tp") int put_short(void *ctx) {
    __u32 n = 5; return bpf_ringbuf_output(&events, &n, 4, 0); }
SEC("raw_tp") int put_long(void *ctx) {
    char text[400] = "long"; return bpf_ringbuf_output(&events, text, sizeof(text), 0); }
"""
RING_SOURCE = EVENT + RING % "__type(value, struct event);" + 'events SEC(".maps");' + PUT_RING
PERF_SOURCE = (
    EVENT
    + PERF % TYPED
    + """events SEC(".maps"); __u64 failed, next;
SEC("raw_tp") int put(struct bpf_raw_tracepoint_args *ctx) {
    for (int i = 0; i < 1000; i++) {
        if (i >= ctx->args[0]) break;
        struct event e = { .n = next++, .name = "event" };
        if (bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &e, sizeof(e))) failed++;
    }
    return 0;
}
"""
)
SOURCES = {"ring": RING_SOURCE, "perf": PERF_SOURCE}


def put(obj: Object, count: int) -> None:
    """Let the program put out ``count`` events, all on CPU 0."""
    obj.programs["put"].test_run(context=(count,), cpu=0)


@pytest.fixture
def ring(load: Load) -> Object:
    return load(RING_SOURCE)


@pytest.mark.parametrize("kind", SOURCES)
def test_events_come_typed_and_in_order(load: Load, kind: str) -> None:
    obj = load(SOURCES[kind])
    reader = obj.maps["events"].events()
    put(obj, 100)
    assert reader.pending == 100
    events = reader.read(100)
    assert [event.n for event in events] == list(range(100))
    assert {event.name for event in events} == {"event"}
    assert (events.lost, reader.lost, reader.consumed, reader.pending) == (0, 0, 100, 0)
    assert reader.read() == []


@pytest.mark.parametrize("kind", SOURCES)
def test_waiting_ends_by_count_by_condition_or_by_time(load: Load, kind: str) -> None:
    obj = load(SOURCES[kind])
    reader = obj.maps["events"].events()
    later = threading.Timer(0.05, put, (obj, 5))
    later.start()
    assert len(reader.read(5, timeout=30)) == 5
    later = threading.Timer(0.05, put, (obj, 5))
    later.start()
    assert reader.read(until=lambda event: event.n == 8, timeout=30)[-1].n >= 8
    assert reader.read(1, timeout=0) == reader.read(1, timeout=0.01) == []
    put(obj, 2)
    assert len(reader.read(until=lambda event: event.n == 1000, timeout=0.01)) == 2
    later.join()


@pytest.mark.parametrize(
    ("declaration", "asked", "expected"),
    [
        (RING % "", "struct event", "event"),
        (RING % "", "event_t", "event"),
        (RING % "", None, None),
        (RING % "__type(value, struct event);", None, "event"),
        (RING % "__type(value, struct event);", "struct other", "other"),
        ("const struct event *unused __attribute__((unused));" + RING % "", None, "event"),
        (PERF % SIZES, "struct event", "event"),
        (PERF % SIZES, None, "event"),
        ("const struct event *unused __attribute__((unused));" + PERF % SIZES, None, "event"),
    ],
    ids=range(9),
)
def test_where_the_type_comes_from(
    load: Load, declaration: str, asked: str | None, expected: str | None
) -> None:
    types = EVENT + "typedef struct event event_t; struct other { __u32 m; };"
    body = PERF_SOURCE if "PERF" in declaration else RING_SOURCE
    kept = "struct other kept; event_t also_kept;"
    obj = load(types + kept + declaration + body[body.index('events SEC(".maps")') :])
    reader = obj.maps["events"].events(asked)
    put(obj, 1)
    (event,) = reader.read(1)
    if expected:
        assert type(event).__name__ == expected
        assert event[0] == 0
    else:
        assert isinstance(event, RawEvent)
        assert event[4:10] == b"event\0"
        with pytest.raises(AttributeError, match="unknown type has no member 'n': say its type by"):
            _ = event.n


def test_a_type_that_is_not_there(ring: Object) -> None:
    events = ring.maps["events"]
    with pytest.raises(UnknownNameError, match=r"no type 'struct evnt' .* did you mean 'event'"):
        events.events("struct evnt")
    with pytest.raises(UnknownNameError, match="no type 'strict event'"):
        events.events("strict event")
    assert events.events("unsigned int").read() == []


def test_a_full_ring_never_claims_that_nothing_was_lost(ring: Object) -> None:
    """4096 bytes hold 170 records of 24; the next one needs more than the 16 bytes left."""
    reader = ring.maps["events"].events()
    put(ring, 169)
    assert reader.read().lost == 0
    put(ring, 200)
    events = reader.read()
    assert len(events) + ring.globals["failed"] == 200
    assert ring.globals["failed"] > 0
    for counted in (events, reader):
        with pytest.raises(MapError, match="ring buffer 'events' was full"):
            _ = counted.lost
    assert events[-1].n == 169 + len(events) - 1
    put(ring, 3)
    assert len(reader.read()) == 3


def test_a_ring_full_before_it_was_read_counts_as_full(ring: Object) -> None:
    put(ring, 200)
    reader = ring.maps["events"].events()
    assert ring.globals["failed"] == 200 - reader.pending
    with pytest.raises(MapError, match="was full"):
        _ = reader.read().lost


def test_a_longer_record_that_came_before_is_kept_in_mind(load: Load) -> None:
    obj = load(RING_SOURCE)
    reader = obj.maps["events"].events()
    assert obj.programs["put_long"].test_run().retval == 0
    reader.read()
    put(obj, 154)
    assert obj.programs["put_long"].test_run().retval != 0
    with pytest.raises(MapError, match="was full"):
        _ = reader.read().lost


def test_perf_counts_what_found_no_room(load: Load) -> None:
    """Generated = consumed + lost + pending, at every moment."""
    obj = load(PERF_SOURCE)
    reader = obj.maps["events"].events()
    for _ in range(20):
        put(obj, 1000)
    generated = 20_000
    assert obj.globals["next"] == generated
    assert reader.lost == obj.globals["failed"] > 0
    assert reader.pending + reader.lost == generated
    assert len(reader.read()) + reader.lost == generated
    put(obj, 10)
    assert reader.consumed + reader.pending + reader.lost == generated + 10
    events = reader.read(10)
    assert [event.n for event in events] == list(range(generated, generated + 10))
    assert events.lost == obj.globals["failed"]


def test_discarded_records_are_no_events(ring: Object) -> None:
    reader = ring.maps["events"].events()
    put(ring, 2)
    ring.globals["discard"] = 1
    put(ring, 5)
    ring.globals["discard"] = 0
    put(ring, 1)
    assert reader.pending == 3
    assert [event.n for event in reader.read()] == [0, 1, 7]


def test_programs_that_never_wake_the_reader_are_heard(ring: Object) -> None:
    """BPF_RB_NO_WAKEUP: nothing tells the waiting reader."""
    ring.globals["flags"] = 1
    reader = ring.maps["events"].events()
    later = threading.Timer(0.05, put, (ring, 3))
    later.start()
    assert len(reader.read(3, timeout=30)) == 3
    later.join()


def test_a_ring_goes_round(ring: Object) -> None:
    reader = ring.maps["events"].events()
    for _ in range(40):
        put(ring, 50)
        assert len(reader.read(50)) == 50
    assert (reader.consumed, reader.lost) == (2000, 0)


def test_a_record_shorter_than_its_type(ring: Object) -> None:
    reader = ring.maps["events"].events()
    ring.programs["put_short"].test_run()
    with pytest.raises(MapError, match=r"'events': an event of 4 bytes is no struct event \(12 by"):
        reader.read()


@pytest.mark.parametrize("kind", SOURCES)
def test_closing_ends_a_read_that_waits(load: Load, kind: str) -> None:
    reader = load(SOURCES[kind]).maps["events"].events()
    caught: list[BaseException] = []
    waiting = threading.Event()

    def until(_: Any) -> bool:
        waiting.set()
        return False

    def read() -> None:
        try:
            reader.read(until=until, timeout=60)
        except MapError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    reader.close()
    reader.close()
    thread.join()
    assert "the reader of 'events' is closed" in str(caught[0])
    assert reader.closed


def test_there_is_one_reader_at_a_time(load: Load) -> None:
    obj = load(RING_SOURCE + "struct other { __u32 m; } kept;")
    events = obj.maps["events"]
    reader = events.events()
    assert events.events() is reader
    other = events.events("struct other")
    put(obj, 1)
    assert other.read()[0].m == 0
    with pytest.raises(MapError, match="is closed"):
        reader.read()
    with events.events() as again:
        put(obj, 1)
        assert again.read()[0].n == 1
    obj.close()
    with pytest.raises(MapError, match="is gone"):
        events.events()


def test_two_objects_put_into_one_ring(load: Load) -> None:
    one = load(RING_SOURCE)
    other = load(RING_SOURCE, maps={"events": one.maps["events"]})
    own = load(RING_SOURCE)
    for obj in (one, other, own):
        put(obj, 2)
    assert [event.n for event in one.maps["events"].events().read()] == [0, 1, 0, 1]
    assert len(own.maps["events"].events().read()) == 2


@pytest.mark.parametrize(("asked", "made"), [(1, 4096), (5000, 8192), (3 * 4096, 16384)])
def test_ring_sizes_are_rounded_up(load: Load, asked: int, made: int) -> None:
    obj = load(RING_SOURCE, max_entries={"events": asked})
    reader = obj.maps["events"].events()
    assert obj.maps["events"].max_entries == made
    put(obj, 100)
    assert len(reader.read(100)) == 100


def test_an_endless_stream_is_read_without_loss(load: Load) -> None:
    """A writer in another thread, a reader that keeps up, and the sum that must hold."""
    obj = load(RING_SOURCE, max_entries={"events": 1 << 20})
    writer: Program = obj.programs["put"]
    thread = threading.Thread(target=lambda: writer.test_run(context=(200,), repeat=200))
    thread.start()
    events = obj.maps["events"].events().read(40_000, timeout=60)
    thread.join()
    assert [event.n for event in events] == list(range(40_000))
    assert obj.globals["failed"] == 0 == events.lost
