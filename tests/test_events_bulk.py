"""Events many at a time: arrays, records of any length, readers that look by themselves."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_bpf.costs.latency import latency
from pytest_bpf.errors import BpfError, MapError
from pytest_bpf.kernel.ringbuf import perf_rings
from pytest_bpf.kernel.ringbuf.rows import Records, Row, RowBatch, count_equal
from pytest_bpf.kernel.sys import perf_event
from pytest_bpf.objects import Map
from pytest_bpf.objects.events import buffers

if TYPE_CHECKING:
    from pytest_bpf.objects import Events, Object
    from tests.conftest import Load

TYPES = """
struct event { __u64 n; __u32 twice; };
struct line { __u32 length; char text[]; };
struct octets { __u32 length; __u8 rest[]; };
const struct event *unused __attribute__((unused));
struct line line; struct octets octets;
__u64 next, failed; __u32 hold, discard;
"""
RING = (
    TYPES
    + """
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 65536); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 65536); } lines SEC(".maps");
static long one(__u64 i, void *ctx) {
    struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
    if (!e) { failed++; return 0; }
    e->n = next++; e->twice = 2 * e->n;
    if (discard && e->n % discard == 0) bpf_ringbuf_discard(e, 0);
    else bpf_ringbuf_submit(e, 0);
    return 0;
}
SEC("raw_tp") int put(struct bpf_raw_tracepoint_args *ctx) {
    bpf_loop(ctx->args[0], one, 0, 0);
    return 0;
}
SEC("raw_tp") int say(struct bpf_raw_tracepoint_args *ctx) {
    char text[68] = "####abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
    __u32 length = ctx->args[0] & 63;
    __builtin_memcpy(text, &length, 4);
    return bpf_ringbuf_output(&lines, text, length + 4, 0);
}
static long held(__u64 i, void *ctx) { return !*(volatile __u32 *)&hold; }
static long long_held(__u64 i, void *ctx) {
    bpf_loop(1 << 20, held, 0, 0);
    return !*(volatile __u32 *)&hold;
}
SEC("syscall") int keep(void *ctx) {
    struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
    if (!e) return 1;
    e->n = next++; e->twice = 0;
    bpf_loop(1 << 14, long_held, 0, 0);
    e->twice = 2 * e->n;
    bpf_ringbuf_submit(e, 0);
    return 0;
}
"""
)
PERF = (
    TYPES
    + """
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); %s
         __uint(key_size, 4); __uint(value_size, 4); } events SEC(".maps");
static long one(__u64 i, void *ctx) {
    struct event e = { .n = next++ };
    e.twice = 2 * e.n;
    if (bpf_perf_event_output(*(void **)ctx, &events, BPF_F_CURRENT_CPU, &e, sizeof(e))) failed++;
    return 0;
}
SEC("raw_tp") int put(struct bpf_raw_tracepoint_args *ctx) {
    bpf_loop(ctx->args[0], one, &ctx, 0);
    return 0;
}
"""
)
SOURCES = {"ring": RING, "perf": PERF % ""}


@pytest.fixture(params=SOURCES)
def obj(request: pytest.FixtureRequest, load: Load) -> Object:
    return load(SOURCES[request.param])


@pytest.fixture
def ring(load: Load) -> Object:
    return load(RING)


def put(obj: Object, count: int) -> None:
    """Let the program put out ``count`` events, all on CPU 0."""
    obj.programs["put"].test_run(context=(count,), cpu=0)


@pytest.mark.parametrize("every", [None, 0.001])
def test_the_array_has_what_the_list_has(obj: Object, every: float | None) -> None:
    reader = obj.maps["events"].events(every=every)
    put(obj, 1000)
    found = reader.read_array(1000)
    assert len(found) == len(found.array) == reader.consumed == 1000
    assert found.array["n"].tolist() == list(range(1000))
    assert (found.array["twice"] == 2 * found.array["n"]).all()
    assert found.lost == reader.pending == 0
    assert set(found.sizes) <= {16, 20}
    assert found.raw(7)[:8] == found.raw(-993)[:8] == found.array[7:8].tobytes()[:8]
    assert repr(found) == "<EventArray of 1000 from events>"
    with pytest.raises(IndexError):
        found.raw(1000)
    put(obj, 1000)
    assert [tuple(event) for event in reader.read(1000)] == [(n, 2 * n) for n in range(1000, 2000)]
    assert reader.read_array().array.shape == (0,)


def test_an_array_gives_values_too(obj: Object) -> None:
    """Some thousand at a time, and the same as a list has."""
    reader = obj.maps["events"].events()
    put(obj, 1500)
    found = list(reader.read_array())
    put(obj, 1500)
    assert [type(event).__name__ for event in found] == ["event"] * 1500
    assert [(event.n, event.twice) for event in found] == [(n, 2 * n) for n in range(1500)]
    assert list(reader.read_array())[-1] == {"n": 2999, "twice": 5998}


def test_an_array_waits_as_a_list_does(obj: Object) -> None:
    reader = obj.maps["events"].events()
    later = [threading.Timer(0.02 * i, put, (obj, 5)) for i in range(1, 4)]
    for timer in later:
        timer.start()
    found = reader.read_array(15, timeout=30)
    assert found.array["n"].tolist() == list(range(15))
    assert len(found.readings) >= 2
    for timer in later:
        timer.join()
    assert len(reader.read_array(1, timeout=0.01)) == 0


def test_latency_of_an_array(load: Load) -> None:
    source = RING.replace("e->n = next++", "next++, e->n = bpf_ktime_get_ns()")
    obj = load(source)
    reader = obj.maps["events"].events()
    put(obj, 100)
    found = latency(reader.read_array(100), "n")
    assert found.count == 100
    assert 0 < found.p50 <= found.max
    put(obj, 1)
    with pytest.raises(BpfError, match="no latency by the stamp 'at'"):
        latency(reader.read_array(1), "at")


LENGTHS = [0, 1, 8, 8, 8, 63, 2, 2, *range(40), *[5] * 30, 7]


def say(obj: Object) -> list[bytes]:
    for length in LENGTHS:
        obj.programs["say"].test_run(context=(length,))
    letters = b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz".ljust(64, b"\0")
    return [letters[:length] for length in LENGTHS]


def test_records_of_any_length_without_a_type(load: Load) -> None:
    obj = load(RING.replace("const struct event *unused __attribute__((unused));", ""))
    said = say(obj)
    found = obj.maps["lines"].events().read_array()
    assert list(found)[7] == found.raw(7) == (2).to_bytes(4, "little") + b"ab"
    assert found.array.dtype == np.dtype("V67")
    assert [row.tobytes()[4:] for row in found.array] == [text.ljust(63, b"\0") for text in said]
    say(obj)
    assert [event[4:] for event in obj.maps["lines"].events().read()] == said


def test_records_of_any_length(ring: Object) -> None:
    said = say(ring)
    found = ring.maps["lines"].events("struct line").read_array()
    assert found.sizes.tolist() == [length + 4 for length in LENGTHS]
    assert [found.raw(i)[4:] for i in range(len(found))] == said
    assert [event.text for event in found] == [text.rstrip(b"\0").decode() for text in said]
    assert found.array.dtype.itemsize == 67
    assert [text.ljust(63, b"\0") for text in said] == [row.tobytes()[4:] for row in found.array]


@pytest.mark.parametrize("name", ["struct line", "struct octets"])
def test_a_last_member_without_a_length_has_the_rest(ring: Object, name: str) -> None:
    reader = ring.maps["lines"].events(name)
    said = say(ring)
    told = reader.read()
    assert [event.length for event in told] == LENGTHS
    if name == "struct line":
        assert [event.text for event in told] == [text.rstrip(b"\0").decode() for text in said]
    else:
        assert [event.rest for event in told] == said
    say(ring)
    found = reader.read_array()
    assert found.array["length"].tolist() == LENGTHS
    member = found.array["text" if name == "struct line" else "rest"]
    assert [bytes(row)[: len(text)] for row, text in zip(member, said, strict=True)] == [
        text.rstrip(b"\0") if name == "struct line" else text for text in said
    ]


def test_a_type_that_is_too_long(ring: Object) -> None:
    say(ring)
    reader = ring.maps["lines"].events("struct event")
    with pytest.raises(MapError, match=r"an event of 4 bytes is no struct event \(16 bytes\)"):
        reader.read_array()
    say(ring)
    reader = ring.maps["lines"].events("unsigned int")
    assert reader.read_array().array.tolist() == LENGTHS * 2
    say(ring)
    assert reader.read() == LENGTHS


def test_what_was_generated_is_consumed_lost_or_pending(ring: Object) -> None:
    """At every moment, with a ring that overflows and records that are discarded."""
    reader = ring.maps["events"].events(failed=lambda: ring.globals["failed"])

    def generated() -> int:
        reserved: int = ring.globals["next"]
        lost: int = ring.globals["failed"]
        return reserved + lost - (reserved + 6) // 7

    ring.globals["discard"] = 7
    for _ in range(4):
        put(ring, 2000)
        assert reader.generated == generated()
        assert reader.pending > 0
        found = reader.read_array()
        assert found.lost == reader.lost == ring.globals["failed"]
        assert reader.consumed + reader.lost == reader.generated == generated()
        assert reader.discarded == (ring.globals["next"] + 6) // 7
        numbers = found.array["n"]
        assert (numbers % 7 > 0).all()
        assert (np.diff(numbers) <= 2).all()
    assert reader.lost == 0
    put(ring, 5000)
    assert reader.lost > 0
    assert reader.generated == generated()


def test_perf_generated(load: Load) -> None:
    obj = load(PERF % "")
    reader = obj.maps["events"].events(size=1, every=0.001)
    for _ in range(5):
        put(obj, 500)
        assert reader.generated == obj.globals["next"]
        reader.read_array()
        assert reader.consumed + reader.lost == obj.globals["next"]
    assert reader.lost == obj.globals["failed"] > 0
    assert reader.discarded == 0


def test_perf_counts_by_records_before_6_0(load: Load) -> None:
    """The kernel says how many were lost in the next record that finds room, then as now."""
    obj = load(PERF % "")
    reader = obj.maps["events"].events(size=4096)
    for ring in reader._live._rings:  # type: ignore[attr-defined]
        ring._counts = False
    put(obj, 500)
    found = reader.read_array()
    assert found.lost == 0
    put(obj, 3)
    assert reader.read_array(3).array["n"].tolist() == [500, 501, 502]
    assert reader.lost == obj.globals["failed"] == 500 - len(found) > 0
    assert reader.generated == 503


def test_a_record_that_is_being_written_is_waited_for(ring: Object) -> None:
    """Nothing behind it is taken before it, and nothing of it before it is whole."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("not measured: who writes and who reads need a CPU each")
    reader = ring.maps["events"].events()
    ring.globals["hold"] = 1
    writer = threading.Thread(target=ring.programs["keep"].test_run)
    writer.start()
    try:
        while not reader.pending:
            assert writer.is_alive()
        put(ring, 3)
        assert reader.pending == 4
        assert reader.read(1, timeout=0.02) == []
        assert len(reader.read_array(1, timeout=0.02)) == 0
        assert reader.pending == reader.generated == 4
    finally:
        ring.globals["hold"] = 0
    assert reader.read_array(4).array.tolist() == [(n, 2 * n) for n in range(4)]
    writer.join()


def test_a_reader_that_polls_leaves_nothing_and_takes_nothing_twice(
    ring: Object,
) -> None:
    """It tells the kernel that it stands one record back: neither reader may see that one again."""
    reader = ring.maps["events"].events(every=0.001)
    seen: list[int] = []
    for count in (1, 1, 700, 1, 2500, 3):
        put(ring, count)
        assert reader.pending == count
        seen += reader.read_array(count).array["n"].tolist()
        assert reader.pending == 0
        assert len(reader.read_array()) == 0
    reader.close()
    again = ring.maps["events"].events()
    assert again.pending == 0
    put(ring, 2)
    seen += [event.n for event in again.read(2)]
    assert seen == list(range(sum((1, 1, 700, 1, 2500, 3)) + 2))


@pytest.mark.parametrize("every", [None, 0.001])
def test_readers_of_one_ring_that_take_turns(ring: Object, every: float | None) -> None:
    """One that another has passed goes on from there, and does not move it back."""
    other = Map.from_id(ring.maps["events"].id)
    one, two = ring.maps["events"].events(every=every), other.events()
    seen: list[int] = []
    for reader in (one, two, one, two, two, one, two):
        put(ring, 700)
        seen += [int.from_bytes(event[:8], sys.byteorder) for event in raw(reader)]
    one.close()
    assert two.pending == 0
    assert sorted(set(seen)) == list(range(4900))
    assert len(seen) == 4900 or every
    other.close()


def raw(reader: Events) -> list[bytes]:
    found = reader.read_array()
    return [found.raw(at) for at in range(len(found))]


def test_a_reader_that_polls_is_not_woken(ring: Object) -> None:
    """Which is seen in the kernel's own eyes: it has never taken all that there was."""
    reader = ring.maps["events"].events(every=0.001)
    put(ring, 10)
    assert len(reader.read_array()) == 10
    readable = reader._live._ready.poll(0)  # type: ignore[attr-defined]
    assert readable
    reader.close()
    reader = ring.maps["events"].events()
    assert not reader._live._ready.poll(0)  # type: ignore[attr-defined]


def test_a_perf_reader_that_polls_is_woken_half_full(load: Load) -> None:
    obj = load(PERF % "")
    reader = obj.maps["events"].events(every=1.0, size=4096)
    put(obj, 10)
    assert not reader._live._ready.poll(0)  # type: ignore[attr-defined]
    put(obj, 60)
    assert reader._live._ready.poll(0)  # type: ignore[attr-defined]
    assert len(reader.read_array(70)) == 70


@pytest.mark.parametrize(("size", "made"), [(1, 4096), (4096, 4096), (4097, 8192), (9000, 16384)])
def test_perf_sizes_are_rounded_up(load: Load, size: int, made: int) -> None:
    """A record takes 8 bytes of header, 4 of its length and 20 of data."""
    obj = load(PERF % "")
    reader = obj.maps["events"].events(size=size)
    put(obj, 2000)
    assert made // 32 - 1 <= reader.pending <= made // 32


def test_a_perf_buffer_goes_round(load: Load) -> None:
    """Records of 32 bytes behind one of another size lie across the end."""
    obj = load(PERF.replace("__u32 twice;", "__u32 twice, more[3];") % "")
    reader = obj.maps["events"].events(size=4096)
    for at in range(100):
        put(obj, 50)
        found = reader.read_array(50)
        assert found.array["n"].tolist() == list(range(50 * at, 50 * at + 50))
        assert (found.array["twice"] == 2 * found.array["n"]).all()
    assert (reader.consumed, reader.lost) == (5000, 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, r"map 'events' \(.*\): every=0 is no interval: .* at most 1$"),
        ({"every": -0.1}, "every=-0.1 is no interval"),
        ({"every": 5}, "every=5 is no interval"),
        ({"every": float("nan")}, "every=nan is no interval"),
        ({"every": "fast"}, "every='fast' is no interval"),
        ({"size": 0}, "size=0 is"),
        ({"size": -4096}, "size=-4096 is"),
        ({"size": 1 << 40}, "size=1099511627776 is"),
        ({"size": 4096.5}, "size=4096.5 is"),
        ({"failed": 3}, "failed=3 cannot be called"),
    ],
)
def test_options_out_of_range(obj: Object, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MapError, match=sentence):
        obj.maps["events"].events(**options)
    put(obj, 1)


def test_a_count_that_is_not_one(load: Load) -> None:
    obj = load(RING)
    reader = obj.maps["events"].events(failed=lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(MapError, match="failed= returned None, not a number of events"):
        _ = reader.lost


def test_a_ring_has_the_size_of_its_map(ring: Object) -> None:
    with pytest.raises(MapError, match=r"for perf buffers; .* max_entries \(65536\), set when"):
        ring.maps["events"].events(size=4096)


def test_a_perf_array_with_too_few_entries(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "online_cpus", lambda: [0, 1])
    obj = load(PERF % "__uint(max_entries, 1);")
    with pytest.raises(MapError, match="has no entry for CPU 1, max_entries is 1: events from"):
        obj.maps["events"].events()


def test_a_cpu_that_went_offline_is_left_out(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has no event for it: ENODEV, which no machine can be made to say otherwise."""
    opening = perf_event.open_bpf_output

    def open_bpf_output(cpu: int, watermark: int, *, timed: bool) -> tuple[int, bool]:
        if cpu != 0:
            raise OSError(19, "No such device")
        return opening(cpu, watermark, timed=timed)

    monkeypatch.setattr(perf_rings, "open_bpf_output", open_bpf_output)
    obj = load(PERF % "")
    reader = obj.maps["events"].events()
    put(obj, 5)
    assert len(reader.read(5)) == 5


def test_other_options_are_another_reader(ring: Object) -> None:
    events = ring.maps["events"]
    reader = events.events(every=0.001)
    assert events.events(every=0.001) is reader
    assert events.events() is not reader
    assert reader.closed


@pytest.mark.parametrize("options", [{}, {"every": 1.0}], ids=["woken", "looking"])
def test_closing_ends_a_read_of_an_array(obj: Object, options: dict[str, Any]) -> None:
    reader = obj.maps["events"].events(**options)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            reader.read_array(1, timeout=60)
        except MapError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.01)
    obj.close()
    thread.join(timeout=120)
    assert "the reader of 'events' is closed" in str(caught[0])
    with pytest.raises(MapError, match="is closed"):
        _ = reader.generated
    with pytest.raises(MapError, match="is gone"):
        obj.maps["events"].events()


def test_equal_words_are_counted() -> None:
    random = np.random.default_rng(1)
    for _ in range(300):
        step, most = int(random.integers(1, 9)), int(random.integers(1, 400))
        same = int(random.integers(1, most + 1))
        words = random.integers(0, 2, 8 + step * most, np.uint32)
        words[8 : 8 + step * same : step] = 7
        if same < most:
            words[8 + step * same] = 3
        assert count_equal(words.data, 8, step, most, 7) == same


def test_rows_of_records_as_bytes_and_as_arrays() -> None:
    """Of several batches, with records of several lengths, some of them empty."""
    random = np.random.default_rng(1)
    for _ in range(60):
        batches, expected = [], []
        for _ in range(random.integers(0, 4)):
            data, rows = b"", []
            for _ in range(random.integers(0, 6)):
                length, many = int(random.integers(0, 20)), int(random.integers(1, 12))
                records = [random.bytes(length) for _ in range(many)]
                rows.append(Row(len(data) + 8, length + 11, many, length))
                data += b"".join(bytes(8) + record + bytes(3) for record in records)
                expected += records
            batches.append(RowBatch(data + bytes(8), rows))
        found = Records(batches)
        assert len(found) == len(expected)
        assert list(found) == expected == [found[at] for at in range(len(found))]
        assert found.sizes().tolist() == [len(record) for record in expected]
        assert found.longest == max(map(len, expected), default=0)
        assert found.shortest == min(map(len, expected), default=0)
        for size in (0, 1, 7, 24):
            rows_of = found.array(np.dtype(f"V{size}"))
            assert len(rows_of) == len(expected)
            if size:
                filled = [record[:size].ljust(size, b"\0") for record in expected]
                assert [row.tobytes() for row in rows_of] == filled
