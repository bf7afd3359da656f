"""Maps and events in bulk on an older kernel, which has no dump program for hash maps."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_bpf.costs.latency import latency
from pytest_bpf.kernel.sys.release import kernel_version

if TYPE_CHECKING:
    from pytest_bpf import Loader, Map, Object

ENTRIES = 5000
KINDS = ("hash", "lru_hash", "percpu_hash", "array", "percpu_array")


@pytest.fixture
def obj(bpf: Loader) -> Object:
    return bpf.load("bulk.bpf.c")


def fill(of: Map, entries: int = ENTRIES) -> None:
    keys = np.arange(entries, dtype=np.uint32)
    values = np.zeros(
        (entries, *of.snapshot()["value"].shape[1:]), [("count", "u8"), ("bytes", "u4")]
    )
    values["count"] = (keys * 3).reshape(-1, *[1] * (values.ndim - 1))
    of.update_many(keys, values)


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_has_every_element_once(obj: Object, kind: str) -> None:
    """By a dump program, or where there is none for a hash map before 6.2, by batches."""
    of = obj.maps[kind]
    fill(of)
    for _ in range(2):
        found = of.snapshot()
        order = np.argsort(found["key"])
        assert len(found) == len(of) or kind == "lru_hash"
        assert (np.diff(found["key"][order]) > 0).all()
        counts = found["value"]["count"][order].reshape(len(found), -1)
        assert (counts == found["key"][order][:, None] * 3).all()
    by_program = of._reads._dump is not None
    assert by_program == (kind.endswith("array") or kernel_version() >= (6, 2, 0))


def test_what_stays_is_there_once_while_others_come_and_go(obj: Object) -> None:
    of = obj.maps["hash"]
    fill(of, 3000)
    ended = threading.Event()

    def change() -> None:
        keys = np.arange(3000, 4500, dtype=np.uint32)
        while not ended.is_set():
            of.update_many(keys, np.zeros(len(keys), [("count", "u8"), ("bytes", "u4")]))
            of.delete_many(keys)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(30):
            stayed = np.sort(of.snapshot()["key"])
            assert (stayed[stayed < 3000] == np.arange(3000)).all()
    finally:
        ended.set()
        writer.join()


@pytest.mark.parametrize("buffer", ["ring", "perf"])
def test_every_event_is_consumed_lost_or_pending(obj: Object, buffer: str) -> None:
    put, of = obj.programs["put"], obj.maps[buffer]
    counted = (lambda: int(obj.globals["no_room"])) if buffer == "ring" else None
    with of.events(failed=counted, size=4096 if buffer == "perf" else None) as reader:
        put.test_run(repeat=20)
        first = reader.read_array(20)
        assert first.array["number"].tolist() == list(range(20))
        assert latency(first, "at").count == 20
        put.test_run(repeat=1000)
        assert reader.lost > 0
        assert reader.pending > 0
        assert reader.generated == obj.globals["next"] == 1020
        kept = reader.read()
        assert [event.number for event in kept] == list(range(20, 20 + len(kept)))
        assert reader.pending == 0
        assert reader.generated == reader.consumed + reader.lost == 1020
