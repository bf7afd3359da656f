"""What is closed is gone: descriptors, kernel objects, threads, memory; also after errors."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pytest_bpf.errors import AttachError, BpfError, LoadError
from pytest_bpf.kernel.sys.descriptors import open_objects
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct event { __u32 n; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 65536);
         __type(value, struct event); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4);
         __uint(value_size, 4); } perf SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1000); __type(key, __u32);
         __type(value, struct event); } table SEC(".maps");
__u64 hits; const volatile int one = 1;
SEC("tracepoint/syscalls/sys_enter_getppid") int traced(void *ctx) { hits += one; return 0; }
SEC("raw_tp/sys_exit") int raw(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""


def footprint() -> tuple[Any, ...]:
    gc.collect()
    return open_objects(), len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def life(loader: Loader, number: int) -> None:
    """Load, attach, read and write, and close; the kernel takes 40 ms to attach and detach."""
    obj = loader.load(SOURCE, max_entries={"table": 500})
    if number % 5 == 0:
        obj.programs["traced"].attach()
        os.getppid()
        assert obj.globals["hits"] >= 1
    table = obj.maps["table"]
    table.update({1: (2,), 3: (4,)})
    assert table.sum() == (6,)
    assert len(table.snapshot()) == 2
    obj.maps["ring"].events().read()
    obj.maps["perf"].events("struct event").read()
    obj.close()
    loader.objects.clear()


def test_two_hundred_lives_leave_nothing() -> None:
    with Loader() as loader:
        for number in range(20):
            life(loader, number)
        before, memory = footprint(), psutil.Process().memory_info().rss
        for number in range(200):
            life(loader, number)
        assert footprint() == before
        assert psutil.Process().memory_info().rss - memory < 4 << 20


def test_refusals_leave_nothing() -> None:
    bad = SOURCE + 'SEC("xdp") int bad(char *ctx) { return *(int *)(ctx + 100); }'
    attempts: list[Callable[[Loader], object]] = [
        lambda loader: loader.load(bad),
        lambda loader: loader.load(SOURCE, globals={"none": 1}),
        lambda loader: loader.load(SOURCE, globals={"one": "x"}),
        lambda loader: loader.load(SOURCE, max_entries={"table": 0}),
        lambda loader: loader.load(SOURCE, programs=["none"]),
        lambda loader: loader.load(SOURCE).programs["traced"].attach("no:such"),
        lambda loader: loader.load(SOURCE).maps["ring"].events("struct none"),
        lambda loader: loader.load(SOURCE).maps["table"].events(),
    ]
    with Loader() as loader, pytest.raises(BpfError):
        attempts[0](loader)
    before = footprint()
    for attempt in attempts:
        with Loader() as loader, pytest.raises(BpfError):
            attempt(loader)
        assert footprint() == before


def test_attaching_all_that_says_where(load: Load) -> None:
    obj = load(SOURCE.partition("bpf_helpers.h>")[2].rpartition("char LICENSE")[0])
    obj.attach()
    assert set(obj.links) == {"traced", "raw"}
    obj.programs["raw"].attach()
    assert set(obj.links) == {"traced", "raw", "raw#2"}
    assert repr(obj.links["raw"]) == "<Link raw -> sys_exit>"
    obj.close()
    assert not any(link.attached for link in obj.links.values())
    assert (obj.closed, repr(obj).endswith(", closed>")) == (True, True)
    obj.close()
    with pytest.raises(AttachError, match="is closed: there is nothing left to attach"):
        obj.attach()
    assert "closed" in repr(obj.programs["raw"])
    with pytest.raises(LoadError, match="program 'raw' is gone: its object was closed"):
        obj.programs["raw"].attach()
    assert obj.links["raw"].fd == -1
    with pytest.raises(AttachError, match="has no info: it is detached"):
        _ = obj.links["raw"].id


def test_an_error_while_closing_stops_nothing_else() -> None:
    before = footprint()
    seen: list[Object] = []

    def closing(obj: Object) -> None:
        seen.append(obj)
        raise RuntimeError("from the hook")

    loader = Loader(on_close=closing)
    one, other = loader.load(SOURCE), loader.load(SOURCE, max_entries={"table": 7})
    other.programs["raw"].attach()
    with pytest.raises(RuntimeError, match="from the hook"):
        loader.close()
    assert seen == [other, one]
    assert one.closed
    assert other.closed
    loader.close()
    del one, other, loader
    seen.clear()
    assert footprint() == before
