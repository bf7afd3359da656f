"""AF_XDP sockets receive what XDP redirects, and send."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import PlaceError, StimulusError
from pytest_bpf.netns.topology import pair
from pytest_bpf.traffic.packets import udp_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.netns.namespace import Namespace
    from pytest_bpf.objects import Object
    from tests.conftest import Load

QUEUES = 2
REDIRECT = """
struct { __uint(type, BPF_MAP_TYPE_XSKMAP); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u32); } sockets SEC(".maps");
SEC("xdp") int redirect(struct xdp_md *ctx) {
    return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP); }
"""


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with pair(xdp=True, queues=QUEUES) as topology:
        left, right = topology
        yield left, right


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(REDIRECT)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_every_queue_has_its_socket(
    ends: tuple[Namespace, Namespace], obj: Object, mode: str
) -> None:
    left, right = ends
    near, far = left.iface, right.iface
    frames = [udp_frame(near, far, payload=bytes(size)) for size in range(300)]
    random.Random(1).shuffle(frames)
    sockets = [right.iface.xdp_socket(queue) for queue in range(QUEUES)]
    with obj.programs["redirect"].attach(right.iface, mode=mode):
        for queue, each in enumerate(sockets):
            obj.maps["sockets"][queue] = each
        cpus = sorted(os.sched_getaffinity(0))
        left.traffic.frames(frames)
        received: list[bytes] = []
        while len(received) < len(frames):
            before = len(received)
            received += [frame for each in sockets for frame in each.receive(timeout=0.2)]
            assert len(received) > before, cpus
    assert sorted(received) == sorted(frames)
    assert [each.statistics.rx_dropped for each in sockets] == [0] * QUEUES
    for each in sockets:
        each.close()
        each.close()


def test_more_frames_than_the_ring_has_room_for_are_sent(
    ends: tuple[Namespace, Namespace],
) -> None:
    left, right = (end.iface for end in ends)
    frames = [udp_frame(right, left, sport=number) for number in range(5000)]
    with right.xdp_socket() as xsk, left.capture(direction="in") as capture:
        assert xsk.send(frames) == 5000
        capture.wait(5000)
        assert xsk.send(frames[0]) == 1
        capture.wait(5001)
    assert capture.frames == [*frames, frames[0]]


def test_what_does_not_fit_is_counted(ends: tuple[Namespace, Namespace], obj: Object) -> None:
    left, right = ends
    frame = udp_frame(left.iface, right.iface)
    with (
        right.iface.xdp_socket(0) as one,
        right.iface.xdp_socket(1) as two,
        obj.programs["redirect"].attach(right.iface, mode="native"),
    ):
        obj.maps["sockets"][0], obj.maps["sockets"][1] = one, two
        left.traffic.frames(frame, count=6000)
        received = sum(len(each.receive(1, timeout=0.1)) for each in (one, two))
        lost = [each.statistics for each in (one, two)]
    assert 2048 <= received < 6000
    assert received + sum(each.rx_fill_ring_empty_descs + each.rx_dropped for each in lost) >= 6000


def test_what_cannot_be(ends: tuple[Namespace, Namespace]) -> None:
    _, right = ends
    with pytest.raises(PlaceError, match="queue 9 of veth0 cannot be made: the interface has no"):
        right.iface.xdp_socket(9)
    with pytest.raises(PlaceError, match="the driver has no mode 'zerocopy'"):
        right.iface.xdp_socket(mode="zerocopy")
    with pytest.raises(PlaceError, match="is auto, copy, zerocopy, not 'fast'"):
        right.iface.xdp_socket(mode="fast")
    with right.iface.xdp_socket() as xsk:
        with pytest.raises(PlaceError, match="another socket is on that queue"):
            right.iface.xdp_socket()
        with pytest.raises(StimulusError, match=r"frame 2 has 3000 bytes; .* sends 14 to 2048"):
            xsk.send([bytes(60), bytes(3000)])
        assert xsk.receive(timeout=0) == []
