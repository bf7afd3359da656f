"""The size of a map: what it takes in memory, and what happens when it is full.

``max_entries`` of ``bpf.load`` makes a map as small as a test wants it, so that "full" is a matter
of a hundred packets; the packets are frames for ``test_run``.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address
from socket import htonl
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import MapError
from pytest_bpf.traffic.packets import CLIENT, udp_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_bpf import Loader, Object
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import CheckEquivalence, FindWorst

pytestmark = pytest.mark.bpf_requires(program_type="sched_cls", map_type=["hash", "lru_hash"])

RACES = 20
"""How often two CPUs are given the chance to race."""

NEW_KEYS = 64 * 1024

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
@pytest.mark.bpf_claim(
    "a LRU_HASH of 10,000 instead of a HASH of 1,000,000 takes 30 to 70 % less memory",
    row=7,
    verdict="holds in part",
)
def test_memory_is_the_capacity_s_and_not_the_type_s(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    before, after = (bpf.load(f"{when}.bpf.c").maps["packets"] for when in ("before", "after"))
    small = bpf.load("before.bpf.c", max_entries={"packets": 10_000}).maps["packets"]
    assert before.max_entries == 100 * after.max_entries
    bpf_claim(
        {
            "less memory, a fiftieth even": after.memlock <= before.memlock / 50,
            "by the type: less than a HASH of 10,000": after.memlock < 0.95 * small.memlock,
        },
        f"HASH of 10,000: {small.memlock:,} B",
        before=before.memlock,
        after=after.memlock,
        unit="B",
    )


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


@pytest.mark.bpf_requires(cpus=2)
def test_first_count_as_the_value_loses_that_of_the_other_cpu(bpf: Loader) -> None:
    right = bpf.load("insert.bpf.c", programs=["insert_zero"])
    assert counted_at_once(right, "insert_zero") == 2 * NEW_KEYS
    for _ in range(RACES):  # on a busy machine the two CPUs may never run at the same time
        wrong = bpf.load("insert.bpf.c", programs=["insert_one"])
        counted = counted_at_once(wrong, "insert_one")
        assert counted <= 2 * NEW_KEYS
        if counted < 2 * NEW_KEYS:
            return
    pytest.skip(f"not measured: two CPUs did not run at the same time, in {RACES} attempts")


def counted_at_once(obj: Object, program: str) -> int:
    """Have two CPUs count the same new keys at the same time; return what is counted."""
    together = Barrier(2, timeout=60)
    failures: list[BaseException] = []

    def run(cpu: int) -> None:
        try:
            os.sched_setaffinity(0, {cpu})
            for first in range(0, NEW_KEYS, 1024):
                together.wait()
                obj.programs[program].test_run(udp_frame(), context={"mark": first})
        except BaseException as error:  # noqa: BLE001 (raised below; the other must not wait)
            failures.append(error)
            together.abort()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, sorted(os.sched_getaffinity(0))[:2]))
    if failures:
        raise failures[0]
    return int(obj.maps["counts"].snapshot()["value"].sum())


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


def test_a_small_lru_hash_counts_as_a_large_hash_does_while_there_is_room(
    bpf_equivalent: CheckEquivalence,
) -> None:
    result = bpf_equivalent(
        "before.bpf.c", "after.bpf.c", max_entries={"packets": 4096}, count=5000
    )
    assert result.after.reach.lines >= result.after.reach.all_lines - 1  # there is always room


@pytest.mark.bpf_requires(exact=True)
@pytest.mark.bpf_claim("a small LRU_HASH costs no more in the worst case", row=7, verdict="refuted")
def test_the_worst_case(bpf_worst: FindWorst, bpf_claim: ClaimCheck) -> None:
    before, after = (
        bpf_worst(f"{when}.bpf.c", max_entries={"packets": 4096}, count=2000)
        for when in ("before", "after")
    )
    bpf_claim(
        after.instructions <= before.instructions,
        f"of BPF {before.insns} and {after.insns}",
        before=before.instructions,
        after=after.instructions,
        unit="instructions, the dearest packet found",
    )
