"""What passes an interface, as frames to compare and as files that others read."""

from __future__ import annotations

import gc
import shutil
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import PlaceError, StimulusError
from pytest_bpf.netns.topology import pair
from pytest_bpf.plugin.differences import explain
from pytest_bpf.traffic.capture import pcap
from pytest_bpf.traffic.capture.blocks import offsets
from pytest_bpf.traffic.packets import arp_frame, tcp_frame, udp_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf.netns.namespace import Namespace
    from pytest_bpf.objects import Object
    from tests.conftest import Load

DROPPERS = """
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("tc") int shot(struct __sk_buff *skb) { return 2; }
"""


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as topology:
        left, right = topology
        yield left, right


@pytest.fixture(scope="module")
def droppers(load_once: Load) -> Object:
    return load_once(DROPPERS)


def frames_of(ends: tuple[Namespace, Namespace], **options: Any) -> list[bytes]:
    left, right = ends
    return [
        udp_frame(left.iface, right.iface, dport=4000, payload=bytes(size), **options)
        for size in (0, 1, 500, 1400)
    ]


def test_both_directions_are_captured(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with right.iface.capture() as capture:
        left.traffic.udp(to=right, count=3, payload=b"ping", echo=True)
        capture.wait(6)
    assert sorted(frame.outgoing for frame in capture) == [False] * 3 + [True] * 3
    assert {packet.payload for packet in capture.packets} == {b"ping"}
    assert [frame.partial_checksum for frame in capture] == [True] * 6
    assert (len(capture), capture.lost, capture.passed) == (6, 0, 6)
    assert capture.lengths.tolist() == [46] * 6
    assert capture.times.tolist() == [frame.time_ns for frame in capture]
    assert repr(capture) == "<Capture of veth0: 6 frames>"


@pytest.mark.parametrize("direction", ["in", "out"])
def test_one_direction(ends: tuple[Namespace, Namespace], direction: str) -> None:
    left, right = ends
    with right.iface.capture(direction=direction) as capture:
        left.traffic.udp(to=right, count=3, echo=True)
        capture.wait(3)
    assert [frame.outgoing for frame in capture] == [direction == "out"] * 3


def test_frames_compare_with_bytes_and_with_packets(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    frames = [*frames_of(ends), *frames_of(ends, vlan=7), tcp_frame(left.iface, right.iface)]
    with right.iface.capture(direction="in") as capture:
        assert left.traffic.frames(frames, count=2, to=right).received == 2 * len(frames)
        assert capture.frames == frames * 2
    assert capture[0].packet == frames[0]
    assert capture.packets[4].vlan.id == 7
    lines = explain("==", capture.frames, [*frames, *frames[:-1], udp_frame()])
    assert lines is not None
    assert any(line.startswith("  [17].ip.") for line in lines)


def test_the_kernels_reasons_are_those_of_the_packets(
    ends: tuple[Namespace, Namespace], droppers: Object
) -> None:
    left, right = ends
    frames = frames_of(ends)
    ways: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("", {}, "NO_SOCKET"),
        ("shot", {"direction": "ingress"}, "TC_INGRESS"),
        ("drop", {"mode": "generic"}, "XDP"),
        ("drop", {"mode": "native"}, "XDP"),
    )
    for name, options, reason in ways:
        link = droppers.programs[name].attach(right.iface, **options) if name else None
        with right.iface.capture(drops=True) as capture:
            left.traffic.frames(frames)
        if link:
            link.detach()
        received = [frame for frame in capture if not frame.outgoing]
        assert [frame.drop for frame in received] == [reason] * len(frames), name
        assert [frame.length for frame in received] == [len(frame) for frame in frames]
        assert all(
            frame.startswith(each.data) for frame, each in zip(frames, received, strict=True)
        )
        assert capture.untold == 0


def test_what_arrives_has_no_reason(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with right.iface.capture(drops=True) as capture:
        left.traffic.udp(to=right, count=2)
    assert [(frame.drop, frame.function) for frame in capture] == [("", "")] * 2


def test_losses_are_counted(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with right.iface.capture(direction="in", ring=1 << 19, most=1 << 19) as capture:
        sent = left.traffic.flood(udp_frame(left.iface, right.iface), count=50_000, to=right)
    assert capture.passed == sent.received == 50_000
    assert capture.lost > 0
    assert len(capture) + capture.lost == 50_000
    assert len(capture.lengths) == len(capture.frames) == len(capture)


@pytest.mark.parametrize("drops", [False, True])
def test_others_read_what_is_written(
    ends: tuple[Namespace, Namespace], tmp_path: Path, *, drops: bool
) -> None:
    left, right = ends
    path = tmp_path / "right.pcapng"
    with right.iface.capture(path, drops=drops) as capture:
        left.traffic.frames(frames_of(ends))
    written = [(frame.data, frame.time_ns) for frame in capture]
    recording = pcap.read_recording(path)
    assert [(each.data, each.time_ns) for each in recording] == written
    utils = pytest.importorskip("scapy.utils")
    with utils.RawPcapNgReader(str(path)) as reader:
        read = list(reader)
    assert [data for data, _ in read] == [frame.data for frame in capture]
    for (_, metadata), frame in zip(read, capture, strict=True):
        assert metadata.tshigh << 32 | metadata.tslow == frame.time_ns
        assert metadata.direction == (2 if frame.outgoing else 1)
        assert [b"NO_SOCKET" in text for text in metadata.comments or []] == [True] * bool(
            frame.drop
        )
    if shutil.which("tcpdump"):
        lines = subprocess.run(
            ["tcpdump", "-nr", path], capture_output=True, text=True, check=True
        ).stdout
        assert lines.count("192.0.2.1.40000 > 192.0.2.2.4000: UDP") == 4


def classic(path: Path, frames: list[bytes], order: str = "<", step: int = 1000) -> Path:
    content = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for number, frame in enumerate(frames):
        head = struct.pack(f"{order}IIII", 5, number * step, len(frame), len(frame))
        content += head + frame
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_recording_is_sent(ends: tuple[Namespace, Namespace], tmp_path: Path, order: str) -> None:
    left, right = ends
    path = classic(tmp_path / "one.pcap", frames_of(ends) * 50, order)
    sent = left.traffic.pcap(path, to=right)
    assert (sent.sent, sent.received, sent.lost) == (200, 200, 0)
    assert sent.received_bytes == sent.bytes == 50 * sum(map(len, frames_of(ends)))


def test_a_recording_keeps_its_timing(ends: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    left, right = ends
    path = classic(tmp_path / "one.pcap", frames_of(ends), step=20_000)
    with right.iface.capture(direction="in") as capture:
        begin = time.time_ns()
        left.traffic.pcap(path, to=right, speed=2)
    for number, each in enumerate(capture.times.tolist()):
        assert each - begin >= number * 9_900_000  # 20 ms at twice the speed; never sooner


def test_what_is_dropped_on_the_way_is_missing(
    ends: tuple[Namespace, Namespace], droppers: Object
) -> None:
    left, right = ends
    with droppers.programs["drop"].attach(right.iface):
        sent = left.traffic.frames(frames_of(ends), to=right)
    assert (sent.sent, sent.received, sent.lost) == (4, 0, 4)
    assert sent.received_frames == []


def test_those_that_arrive_are_named(ends: tuple[Namespace, Namespace], load: Load) -> None:
    left, right = ends
    source = 'SEC("xdp") int no_arp(struct xdp_md *ctx) { __u8 *at = (void *)(long)ctx->data; '
    source += "if (at + 14 > (__u8 *)(long)ctx->data_end) return XDP_DROP; "
    source += "return at[13] == 6 ? XDP_DROP : XDP_PASS; }"
    with load(source).programs["no_arp"].attach(right.iface):
        several = [udp_frame(left.iface, right.iface), arp_frame(), tcp_frame(vlan=7)]
        sent = left.traffic.frames(several, to=right)
        one = left.traffic.frames(several[0], count=2, to=right)
    assert sent.received_frames == [several[0], several[2]]
    assert one.received_frames == [several[0]] * 2


def test_bad_recordings_are_refused_in_one_sentence(
    ends: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    left, right = ends
    good = classic(tmp_path / "good.pcap", frames_of(ends)).read_bytes()
    with right.iface.capture(tmp_path / "good.pcapng"):
        left.traffic.frames(frames_of(ends))
    newer = (tmp_path / "good.pcapng").read_bytes()
    interface = newer.index(struct.pack("=HHI", 1, 0, 0), 28)
    for content, words in (
        (b"", "is no pcap file, and no pcapng file"),
        (b"no pcap at all, but long enough to be one", "is no pcap file"),
        (good[:-1], "is cut off in frame 4"),
        (good[:20] + struct.pack("<I", 113) + good[24:], "link type 113, not Ethernet"),
        (newer[:-60], "is cut off or damaged behind frame"),
        (newer[:interface] + b"\x71\0" + newer[interface + 2 :], "link type 113, not Ethernet"),
    ):
        path = tmp_path / "bad"
        path.write_bytes(content)
        with pytest.raises(StimulusError, match=words):
            left.traffic.pcap(path)
    for place, words in (
        ("none.pcap", "none.pcap cannot be read: No such file"),
        (".", "directory"),
    ):
        with pytest.raises(StimulusError, match=words):
            left.traffic.pcap(tmp_path / place)
    tiny = classic(tmp_path / "tiny.pcap", [b"x" * 6])
    with pytest.raises(StimulusError, match=r"frame 1 of .* has 6 bytes; an Ethernet frame has at"):
        left.traffic.pcap(tiny)
    short = classic(tmp_path / "short.pcap", [b"x" * 20]).read_bytes()
    (tmp_path / "short.pcap").write_bytes(short[:36] + struct.pack("<I", 90) + short[40:])
    with pytest.raises(StimulusError, match=r"frame 1 of .* has 20 of its 90 bytes"):
        left.traffic.pcap(tmp_path / "short.pcap")


def test_a_capture_that_cannot_be_written_does_not_begin(
    ends: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    iface = ends[1].iface
    for path, words in (
        (tmp_path, "that is a folder"),
        (tmp_path / "none" / "x.pcapng", f"there is no folder {tmp_path / 'none'}"),
    ):
        with pytest.raises(StimulusError, match=f"a capture cannot be written to {path}: {words}"):
            iface.capture(path)


def test_an_interface_that_is_gone_is_a_mistake_and_no_skip() -> None:
    with pair() as (left, _):
        iface = left.iface
        left.ipr.link("del", index=iface.ifindex)
        with pytest.raises(
            PlaceError, match="veth0 cannot be captured: there is no such interface"
        ):
            iface.capture()


def test_what_cannot_be_sent_or_captured(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    long = udp_frame(payload=bytes(1500))
    with pytest.raises(
        StimulusError, match=r"frame 2 has 1542 bytes, but the mtu of veth0 is 1500.* mtu=1528"
    ):
        left.traffic.frames([arp_frame(), long])
    with pytest.raises(StimulusError, match="the frame has 1542 bytes"):
        left.traffic.frames(long)
    with pytest.raises(StimulusError, match="the frame has 1542 bytes"):
        left.traffic.flood(long, count=1)
    with pytest.raises(StimulusError, match="is both or in or out, not 'up'"):
        right.iface.capture(direction="up")
    with pytest.raises(StimulusError, match="ring is 0 bytes; it is from 64 KiB to 2 GiB"):
        right.iface.capture(ring=0)
    with (
        right.iface.capture() as capture,
        pytest.raises(StimulusError, match=r"veth0: 0 of 3 frames passed within 0.01 s"),
    ):
        capture.wait(3, timeout=0.01)
    with pytest.raises(StimulusError, match="speed is 0; it must be positive"):
        left.traffic.pcap("x", speed=0)


def test_runs_of_frames_are_found_at_once() -> None:
    for steps in (
        [144] * 100,
        [144] * 40 + [160] * 5 + [144] * 3,
        [144, 160] * 30,
        [128, 128, 624] * 9,
        [96],
        [],
    ):
        places, at = [], 48
        block = bytearray(48 + sum(steps) + 96)
        for step in steps:
            places.append(at)
            struct.pack_into("=I", block, at, step)
            at += step
        if places:
            struct.pack_into("=I", block, places[-1], 0)
        assert offsets(bytes(block), len(steps), 48).tolist() == places


def test_what_nobody_closed_ends_with_its_namespace() -> None:
    before = threading.active_count()
    with pair(xdp=True) as (left, right):
        capture, forgotten = right.iface.capture(), right.iface.capture()
        xsk = right.iface.xdp_socket()
        del forgotten
        gc.collect()
        left.traffic.udp(to=right, count=2)
    assert (len(capture), capture.lost) == (2, 0)
    assert xsk.fileno() == -1
    assert threading.active_count() <= before
