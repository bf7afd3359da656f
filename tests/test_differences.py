from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.kernel.btf import Int, Member, Struct
from pytest_bpf.kernel.values.decoding import class_of
from pytest_bpf.objects import PerCPU
from pytest_bpf.objects.events.event_values import EventList
from pytest_bpf.plugin.differences import MOST, explain

if TYPE_CHECKING:
    from pytest_bpf.loader import Loader

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct stats { __u64 packets, bytes; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1000);
         __type(key, __u32); __type(value, struct stats); } hits SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1);
         __type(key, __u32); __type(value, struct stats); } total SEC(".maps");
char LICENSE[] SEC("license") = "GPL";
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="maps need root")


def record(name: str, **members: Any) -> Any:
    u64 = Int("__u64", 8)
    each = tuple(Member(member, u64, 64 * at) for at, member in enumerate(members))
    return class_of(Struct(name, 8 * len(each), each))(members.values())


def stats(packets: int, byte_count: int) -> Any:
    return record("stats", packets=packets, bytes=byte_count)


def test_nothing_of_ours_is_left_to_pytest() -> None:
    for op, left, right in (
        ("==", {1: 2}, {1: 3}),
        ("==", [1], [2]),
        ("==", 1, "x"),
        ("in", 1, [2]),
        ("not in", 1, [1]),
        ("<", stats(1, 2), stats(0, 0)),
        ("==", stats(1, 2), None),
        ("==", stats(1, 2), 5),
        ("==", [], [1]),
    ):
        assert explain(op, left, right) is None


def test_asking_imports_nothing_where_nothing_was_loaded() -> None:
    code = """
        import sys
        from pytest_bpf.plugin.differences import explain
        assert explain("==", {1: 2}, {1: 3}) is None
        heavy = {"numpy", "pyroute2", "pytest_bpf.objects", "pytest_bpf.kernel.sys.libbpf"}
        sys.exit(", ".join(heavy & set(sys.modules)) or 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_records_differ_member_by_member() -> None:
    assert explain("==", stats(3, 2), stats(4, 2)) == [
        "stats(packets=3, bytes=2) == stats(packets=4, bytes=2)",
        "1 difference, left != right:",
        ".packets: 3 != 4",
    ]
    lines = explain("==", stats(3, 2), {"packets": 3, "octets": 2})
    assert lines is not None
    assert lines[2:] == [".bytes: only on the left: 2", ".octets: only on the right: 2"]
    lines = explain("==", (4, 2), stats(3, 2))
    assert lines is not None
    assert lines[2:] == [".packets: 4 != 3"]


def test_nested_records_and_arrays_are_followed() -> None:
    left = record("event", pid=1, at=stats(1, 2), path=(1, 2, 3))
    right = record("event", pid=1, at=stats(1, 5), path=(1, 7, 3))
    lines = explain("==", left, right)
    assert lines is not None
    assert lines[2:] == [".at.bytes: 2 != 5", ".path[1]: 2 != 7"]


def test_cpus_are_named_and_their_sum_is_shown() -> None:
    lines = explain("==", PerCPU((stats(1, 5), stats(2, 0))), (stats(1, 5), stats(3, 0)))
    assert lines is not None
    assert lines[2:] == [
        "[CPU 1].packets: 2 != 3",
        "[sum]: stats(packets=3, bytes=5) != stats(packets=4, bytes=5)",
    ]
    lines = explain("==", PerCPU((1, 2)), (2, 1))
    assert lines is not None
    assert lines[2:] == ["[CPU 0]: 1 != 2", "[CPU 1]: 2 != 1"]
    assert explain("==", PerCPU(("a", "b")), ("a", "c"))


def test_a_list_is_as_good_as_a_tuple() -> None:
    assert PerCPU((1, 2)) == [1, 2]
    lines = explain("==", {0: PerCPU((1, 2))}, {0: [1, 3]})
    assert lines is not None
    assert lines[2:] == ["[0][CPU 1]: 2 != 3", "[0][sum]: 3 != 4"]


def test_lists_of_events_differ_by_position_and_length() -> None:
    events = EventList([stats(i, i) for i in range(3)], "events", 0)
    lines = explain("==", events, [(0, 0), (9, 1)])
    assert lines == [
        "EventList of 3 == list of 2",
        "2 differences, left != right:",
        "[1].packets: 1 != 9",
        "[2]: only on the left: stats(packets=2, bytes=2)",
    ]


def test_an_event_that_is_not_there_is_shown_with_the_nearest() -> None:
    events = [stats(i, 2 * i) for i in range(50)]
    assert explain("in", stats(30, 61), events) == [
        "stats(packets=30, bytes=61) in list of 50",
        "the nearest is [30], element != value:",
        ".bytes: 60 != 61",
    ]


def test_many_differences_are_cut_short() -> None:
    lines = explain("==", {i: stats(i, 0) for i in range(100)}, {})
    assert lines is not None
    assert lines[1] == "100 differences, left != right:"
    assert len(lines) == 2 + MOST + 1
    assert lines[-1] == "... and 90 more"


def test_long_values_are_cut_short() -> None:
    lines = explain("==", {1: stats(0, 0)}, {1: "x" * 10_000})
    assert lines is not None
    assert max(map(len, lines)) < 300


@needs_root
def test_maps_show_the_keys_that_differ(bpf: Loader) -> None:
    hits = bpf.load(SOURCE).maps["hits"]
    hits[1], hits[2], hits[3] = (1, 10), (2, 20), (3, 30)
    expected = {1: (1, 10), 2: {"packets": 9, "bytes": 20}, 4: (4, 40)}
    lines = explain("==", hits, expected)
    assert lines is not None
    assert lines[0].startswith("<Map hits (hash")
    assert lines[0].endswith("== dict of 3")
    assert set(lines[2:]) == {
        "[2].packets: 2 != 9",
        "[3]: only on the left: stats(packets=3, bytes=30)",
        "[4]: only on the right: (4, 40)",
    }
    reverse = explain("==", expected, hits)
    assert reverse is not None
    assert "[2].packets: 9 != 2" in reverse
    assert "[3]: only on the right: stats(packets=3, bytes=30)" in reverse


@needs_root
def test_a_map_that_changed_meanwhile_is_said_to_be_equal(bpf: Loader) -> None:
    hits = bpf.load(SOURCE).maps["hits"]
    lines = explain("==", hits, {})
    assert lines is not None
    assert lines[1] == "they are equal by now: a map has changed"


@needs_root
def test_failing_tests_show_them(pytester: pytest.Pytester) -> None:
    (pytester.path / "maps.bpf.c").write_text(SOURCE)
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def maps(bpf):
            maps = bpf.load("maps.bpf.c").maps
            maps["hits"][1] = (1, 10)
            maps["hits"][2] = (2, 20)
            return maps

        def test_equal(maps):
            assert maps["hits"] == {1: (1, 10), 2: (2, 21), 3: (0, 0)}

        def test_in(maps):
            assert 7 in maps["hits"]

        def test_not_in(maps):
            assert 2 not in maps["hits"]

        def test_empty(maps):
            maps["hits"].clear()
            assert 2 in maps["hits"]

        def test_record(maps):
            assert maps["hits"][1] == (1, 11)

        def test_per_cpu(maps):
            total = maps["total"]
            assert total == {0: ((5, 0),) * len(total[0])}

        def test_snapshot_of_a_dict(maps):
            assert dict(maps["hits"]) == {1: (1, 10)}
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q")
    result.assert_outcomes(failed=7)
    result.stdout.fnmatch_lines(
        [
            "E *assert <Map hits (hash, *)> == dict of 3",
            "E * 2 differences, left != right:",
            "E *[[]2].bytes: 20 != 21",
            "E *[[]3]: only on the right: (0, 0)",
            "E *assert 7 in <Map hits (hash, *)>",
            "E * its keys: ?, ?",
            "E *assert 2 not in <Map hits (hash, *)>",
            "E * its value is stats(packets=2, bytes=20)",
            "E *assert 2 in <Map hits (hash, *)>",
            "E * it is empty",
            "E *assert stats(packets=1, bytes=10) == (1, 11)",
            "E * .bytes: 10 != 11",
            "E *[[]0][[]CPU 0].packets: 0 != 5",
            "E *assert dict of 2 == dict of 1",
            "E *[[]2]: only on the left: stats(packets=2, bytes=20)",
        ]
    )
