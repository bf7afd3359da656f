"""The size of a map: what it takes in memory, and what happens when it is full.

``max_entries`` of ``bpf.load`` makes a map as small as a test wants it, so that "full" is a matter
of a hundred packets; the packets are frames for ``test_run``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Address
from socket import htonl
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import MapError
from pytest_bpf.stimuli.packets import CLIENT, udp_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf import Loader, Object

pytestmark = pytest.mark.bpf_requires(program_type="sched_cls", map_type=["hash", "lru_hash"])

accounted = pytest.mark.bpf_requires(kernel=">=6.2")  # before, memlock is an estimate


def test_both_count_alike_while_there_is_room(bpf: Loader) -> None:
    before, after = bpf.load("before.bpf.c"), bpf.load("after.bpf.c")
    for obj in (before, after):
        send(obj, range(1, 501))
        send(obj, range(1, 251))
    assert after.maps["packets"] == before.maps["packets"]
    assert sorted(before.maps["packets"].values()) == [1] * 250 + [2] * 250


def test_other_protocols_are_not_counted(bpf: Loader) -> None:
    for source in ("before.bpf.c", "after.bpf.c"):
        obj = bpf.load(source)
        obj.programs["count"].test_run(udp_frame(ipv6=True))
        assert len(obj.maps["packets"]) == 0


@accounted
@pytest.mark.parametrize(
    ("source", "capacity"),
    [("before.bpf.c", 1_000_000), ("before.bpf.c", 10_000), ("after.bpf.c", 10_000)],
)
def test_memory_follows_from_the_capacity(bpf: Loader, source: str, capacity: int) -> None:
    packets = bpf.load(source, max_entries={"packets": capacity}).maps["packets"]
    assert packets.memlock == pytest.approx(hash_memory(capacity, key=4, value=8), rel=0.05)


@accounted
def test_a_hundredth_of_the_capacity_takes_a_fiftieth_of_the_memory(bpf: Loader) -> None:
    before, after = (bpf.load(f"{when}.bpf.c").maps["packets"] for when in ("before", "after"))
    assert before.max_entries == 100 * after.max_entries
    assert after.memlock <= before.memlock / 50


def test_full_hash_refuses_new_sources_and_keeps_the_old(bpf: Loader) -> None:
    before = bpf.load("before.bpf.c", max_entries={"packets": 100})
    send(before, range(1, 301))
    send(before, range(1, 301))
    assert before.globals["refused"] == 2 * 200
    assert before.maps["packets"] == {htonl(n): 2 for n in range(1, 101)}
    with pytest.raises(MapError, match="E2BIG"):
        before.maps["packets"][0] = 1


def test_full_lru_hash_forgets_the_old_and_takes_the_new(bpf: Loader) -> None:
    capacity = 1000
    after = bpf.load("after.bpf.c", max_entries={"packets": capacity})
    send(after, range(1, 3001))
    assert after.globals["refused"] == 0
    # entries are freed 128 at a time, and each CPU keeps as many at hand
    spare = 128 * ((os.cpu_count() or 1) + 1)
    assert capacity - spare <= len(after.maps["packets"]) <= capacity


def send(obj: Object, sources: Iterable[int]) -> None:
    """Show the program one packet from each of these IPv4 addresses."""
    for source in sources:
        frame = udp_frame(src=replace(CLIENT, ipv4=IPv4Address(source)))
        obj.programs["count"].test_run(frame)


def hash_memory(capacity: int, *, key: int, value: int) -> int:
    """Return the bytes of a preallocated hash: its elements, and its buckets, a power of two."""
    element = 48 + round_up(key) + round_up(value)
    return capacity * element + 16 * (1 << (capacity - 1).bit_length())


def round_up(size: int) -> int:
    """Return the next multiple of 8 bytes."""
    return -(-size // 8) * 8
