"""Maps, records, packets and events as text and as plain values: the same in every run."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import Packet, XdpAction, to_plain
from pytest_bpf.objects.events.table import table

if TYPE_CHECKING:
    from pytest_bpf import Loader
    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
enum age { NEW = 1, OLD = 2 };
struct stream { __u32 id; enum age state; char name[8]; __u8 mac[4]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 100);
         __type(key, __u32); __type(value, struct stream); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1000);
         __type(key, __u32); __type(value, __u64); } counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
         __type(key, __u32); __type(value, __u64); } cpus SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096);
         __type(value, struct stream); } events SEC(".maps");
SEC("xdp") int send(struct xdp_md *ctx)
{
    struct stream flow = {.id = 7, .state = OLD, .name = "seven"};
    bpf_ringbuf_output(&events, &flow, sizeof(flow), 0);
    return XDP_PASS;
}
"""


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    """An object whose maps have something in them."""
    obj = load_once(SOURCE)
    for number in (9, 2):
        obj.maps["flows"][number] = {"id": number, "state": "NEW", "name": "x", "mac": b"\1\2\3\4"}
    obj.maps["counts"][3] = 5
    return obj


def test_a_map_shows_its_elements_and_no_id(obj: Object) -> None:
    flows = obj.maps["flows"]
    assert repr(flows).startswith("<Map flows (hash, max_entries 100): {2: stream(id=2, state=")
    assert str(flows).splitlines()[0] == "flows (hash, max_entries 100): 2 elements"
    assert [line.split(":")[0] for line in str(flows).splitlines()[1:]] == ["  2", "  9"]
    assert not re.search(r"\bid \d|0x", repr(flows) + str(flows))
    assert str(obj.maps["counts"]) == (
        "counts (array, max_entries 1000): 1 element other than 0\n  3: 5"
    )
    assert repr(obj.maps["events"]) == "<Map events (ringbuf, max_entries 4096)>"


def test_a_map_of_many_elements_shows_the_first(obj: Object) -> None:
    counts = obj.maps["counts"]
    before = dict(counts.items())
    counts.update(dict.fromkeys(range(1000), 1))
    assert repr(counts).endswith("4: 1, ... 995 more}>")
    assert str(counts).splitlines()[-1] == "  ... and 960 more"
    counts.update(before)


def test_a_closed_map_has_a_text(load: Load) -> None:
    obj = load(SOURCE)
    flows = obj.maps["flows"]
    obj.close()
    assert repr(flows) == "<Map flows (hash, max_entries 100, closed)>"
    assert str(flows) == "flows (hash, max_entries 100, closed)"


def test_plain_values_are_those_of_json(obj: Object) -> None:
    flows = to_plain(obj.maps["flows"])
    assert list(flows) == [2, 9]
    assert flows[2] == {"id": 2, "state": "NEW", "name": "x", "mac": "01020304"}
    assert type(flows[2]["id"]) is int
    assert to_plain(obj.maps["cpus"][0])[0] == 0
    assert json.loads(json.dumps(flows)) == {str(key): value for key, value in flows.items()}
    packet = to_plain(Packet(bytes(12) + b"\x08\x06" + bytes(28)))
    assert packet[0].startswith("eth: ")
    assert to_plain({"a": b"\x01", "b": (1.5, None, True)}) == {"a": "01", "b": [1.5, None, True]}


def test_events_print_as_a_table(obj: Object) -> None:
    events = obj.maps["events"].events()
    obj.programs["send"].test_run(bytes(64))
    obj.programs["send"].test_run(bytes(64))
    lines = str(events.read(2)).splitlines()
    assert re.split(r"\s{2,}", lines[0]) == ["id", "state", "name", "mac"]
    assert re.split(r"\s{2,}", lines[1])[:3] == ["7", "OLD", "seven"]
    assert len(lines) == 3


def test_events_without_members_stand_as_they_are() -> None:
    assert table([b"a", b"b"]) == "b'a'\nb'b'"
    many: list[Any] = [b"a"] * 50
    assert table(many).splitlines()[-1] == "... and 10 more"


def test_syrupy_keeps_plain_values(pytester: pytest.Pytester) -> None:
    pytest.importorskip("syrupy")
    pytester.makepyfile("""
        import os
        from pytest_bpf import Packet, to_plain

        def test_packet(snapshot):
            ttl = int(os.environ["TTL"])
            packet = bytes(12) + b"\\x08\\x00E" + bytes(7) + bytes([ttl]) + bytes(11)
            assert to_plain(Packet(packet)) == snapshot
    """)
    arguments = ("-q", "-p", "no:cacheprovider")
    for ttl, more, outcome in (
        ("1", ["--snapshot-update"], {"passed": 1}),
        ("1", [], {"passed": 1}),
        ("2", [], {"failed": 1}),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TTL", ttl)
            result = pytester.runpytest_subprocess(*arguments, *more)
        result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(["*ttl 2*"])


def test_plain_values_are_python_as_it_stands_in_a_test(bpf: Loader) -> None:
    """What inline-snapshot needs; the tool itself speaks up in every session with xdist."""
    ports = bpf.create_map("hash", key="u32", value="u64", max_entries=8)
    ports[443], ports[53] = 7, 1
    packet = Packet(bytes(12) + b"\x08\x00E")
    for value in (ports, packet, {"verdict": XdpAction.XDP_DROP}):
        plain = to_plain(value)
        assert ast.literal_eval(repr(plain)) == plain
    assert repr(to_plain(ports)) == "{53: 1, 443: 7}"
