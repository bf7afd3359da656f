"""The kernel sees exactly the system calls that were asked for: a BPF program counts them."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cgroup import Cgroup
from pytest_bpf.errors import StimulusError, UnknownNameError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.netns import Namespace
from pytest_bpf.syscalls import SyscallResult, Syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NUMBERS = {
    "read": (0,),
    "write": (1,),
    "mmap": (9,),
    "getpid": (39,),
    "connect": (42,),
    "clone": (56, 435),
    "execve": (59,),
    "openat": (257,),
}
"""Of x86-64: asm/unistd_64.h."""

MOST = 512
RAW_TRACEPOINT, ARRAY = 17, 2
EXIT = (0x95, 0, 0, 0)


SOCK_ADDR, INET4_CONNECT = 18, 10


class LoadOptions(ctypes.Structure):
    """The beginning of ``struct bpf_prog_load_opts`` of bpf/bpf.h."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
    ]


class Counter:
    """Counts system calls, by number, of a thread and the children it starts.

    It goes by the thread's name, which children inherit; with ``whole`` by the process.
    """

    def __init__(self, *, whole: bool = False) -> None:
        name = f"{os.getpid():08}".encode()
        self.map = libbpf.call("bpf_map_create", ARRAY, b"calls", 4, 8, MOST, None)
        ours = [
            (0x85, 0, 0, 14),  # r0 = bpf_get_current_pid_tgid()
            (0x77, 0, 0, 32),
            (0x55, 0, 14, os.getpid()),  # if r0 != our process goto exit
        ]
        named = [
            (0xBF, 0xA1, 0, 0),  # r1 = stack - 16
            (0x07, 1, 0, -16),
            (0xB7, 2, 0, 16),
            (0x85, 0, 0, 16),  # bpf_get_current_comm(r1, 16)
            (0x79, 0xA1, -16, 0),
            (0x18, 2, 0, int.from_bytes(name[:4], "little")),
            (0, 0, 0, int.from_bytes(name[4:], "little")),
            (0x5D, 0x21, 14, 0),  # if r1 != our name goto exit
        ]
        program = [
            (0xBF, 0x16, 0, 0),  # r6 = context: struct pt_regs *, long number
            *(ours if whole else named),
            (0x79, 0x61, 8, 0),  # r1 = number
            (0x25, 1, 12, MOST - 1),  # if r1 >= MOST goto exit
            (0x63, 0x1A, -4, 0),
            (0xBF, 0xA2, 0, 0),  # r2 = &key
            (0x07, 2, 0, -4),
            (0x18, 0x11, 0, self.map),
            (0, 0, 0, 0),
            (0x85, 0, 0, 1),  # r0 = bpf_map_lookup_elem(map, r2)
            (0x15, 0, 4, 0),
            (0xB7, 1, 0, 1),
            (0xDB, 0x10, 0, 0),  # *r0 += 1, atomically
            (0xB7, 0, 0, 0),
            EXIT,
            (0xB7, 0, 0, 0),
            EXIT,
        ]
        code = b"".join(struct.pack("<BBhi", *instruction) for instruction in program)
        arguments = (RAW_TRACEPOINT, b"calls", b"GPL", code, len(program), None)
        try:
            self.program = libbpf.call("bpf_prog_load", *arguments)
            self.link = libbpf.call("bpf_raw_tracepoint_open", b"sys_enter", self.program)
        except OSError as error:
            pytest.skip(f"no raw tracepoint on sys_enter: {error}")
        self.comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        self.before = self.comm.read_bytes().rstrip(b"\n")
        self.comm.write_bytes(name)

    def __getitem__(self, name: str) -> int:
        total = 0
        for number in NUMBERS[name]:
            value = ctypes.c_uint64()
            key = ctypes.c_uint32(number)
            arguments = (self.map, ctypes.byref(key), ctypes.byref(value), 0)
            libbpf.call("bpf_map_lookup_elem_flags", *arguments)
            total += value.value
        return total

    def close(self) -> None:
        self.comm.write_bytes(self.before)
        for descriptor in (self.link, self.program, self.map):
            os.close(descriptor)


@contextmanager
def counting(*, whole: bool = False) -> Iterator[Counter]:
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of the system calls are x86-64's")
    counter = Counter(whole=whole)
    try:
        yield counter
    finally:
        counter.close()


def counted(
    name: str, run: Callable[[], SyscallResult], *, whole: bool = False
) -> tuple[SyscallResult, int]:
    with counting(whole=whole) as counter:
        before = counter[name]
        ran = run()
        return ran, counter[name] - before


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("count", [0, 1, 20])
def test_the_kernel_sees_exactly_that_many(name: str, count: int) -> None:
    ran, seen = counted(name, lambda: Syscalls().run(name, count))
    assert (ran.count, ran.failures, seen) == (count, 0, count)


@pytest.mark.parametrize("name", ["read", "write", "openat", "connect", "getpid"])
def test_many(name: str) -> None:
    ran, seen = counted(name, lambda: Syscalls().run(name, 30_000))
    assert (ran.failures, seen) == (0, 30_000)
    assert ran.seconds > 0


@pytest.mark.parametrize(("size", "count"), [(0, 10), (1, 10), (100_000, 50), (2 << 20, 3)])
def test_sizes(size: int, count: int) -> None:
    calls = Syscalls()
    for name, run in (("read", calls.read), ("write", calls.write)):
        ran, seen = counted(name, lambda run=run: run(count, size=size))  # type: ignore[misc]
        assert (ran.failures, seen) == (0, count)
    ran, seen = counted("mmap", lambda: calls.mmap(count, size=size + 1))
    assert (ran.failures, seen) == (0, count)


def test_reads_and_writes_move_that_many_bytes() -> None:
    def moved(field: str) -> int:
        lines = Path(f"/proc/self/task/{threading.get_native_id()}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)[field])

    before = moved("rchar"), moved("wchar")
    overhead = moved("rchar") - before[0]  # reading the figures reads, too
    before = moved("rchar"), moved("wchar")
    Syscalls().read(100, size=100_000)
    Syscalls().write(100, size=100_000)
    read, written = moved("rchar") - before[0], moved("wchar") - before[1]
    assert written == 100 * 100_000
    assert read - 100 * 100_000 < 10 * overhead


@pytest.mark.parametrize(
    ("threads", "cpus"), [(2, None), (3, None), (1, (0,)), (1, (0, 1)), (5, (0, 1))]
)
def test_threads_share_the_count(threads: int, cpus: Sequence[int] | None) -> None:
    if cpus and not set(cpus) <= os.sched_getaffinity(0):
        pytest.skip(f"not all of the CPUs {cpus} may be used here")
    ran, seen = counted(
        "getpid", lambda: Syscalls().getpid(1001, threads=threads, cpus=cpus), whole=True
    )
    assert (ran.count, ran.failures, seen) == (1001, 0, 1001)


def test_threads_are_pinned_and_the_caller_is_not() -> None:
    mine = os.sched_getaffinity(0)
    cpus = sorted(mine)[:2]
    seen: list[tuple[int, set[int]]] = []

    def look(count: int) -> None:
        seen.append((count, os.sched_getaffinity(0)))

    Syscalls({"look": look}).run("look", 9, threads=2 * len(cpus), cpus=cpus)
    assert sorted(next(iter(where)) for _, where in seen) == sorted(2 * cpus)
    assert all(len(where) == 1 for _, where in seen)
    assert sum(count for count, _ in seen) == 9
    assert os.sched_getaffinity(0) == mine
    assert threading.active_count() == len(threading.enumerate())


REFUSED = """
import ctypes, os, struct, threading
from pytest_bpf.errors import StimulusError
from pytest_bpf.syscalls import Syscalls

refuse = [  # seccomp: sched_setaffinity fails with EPERM
    (0x20, 0, 0, 0), (0x15, 0, 1, 203), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in refuse))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(refuse), ctypes.addressof(code)))
prctl = ctypes.CDLL(None).prctl
assert not prctl(38, 1, 0, 0, 0) and not prctl(22, 2, program, 0, 0)
done = []
try:
    cpus = sorted(os.sched_getaffinity(0))
    Syscalls({"look": done.append}).run("look", threads=8, cpus=cpus)
except StimulusError as error:
    print(error, done, threading.active_count(), sep="|")
"""


def test_a_cpu_on_which_no_thread_may_run_is_one_sentence() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the number of the system call is x86-64's")
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60, check=True
    )
    sentence, *rest = done.stdout.rstrip().split("|")
    assert re.fullmatch(r"no thread can run on CPU \d+: Operation not permitted", sentence)
    assert rest == ["[]", "1"]  # nothing ran, and no thread is left


def test_one_thread_without_cpus_is_the_caller() -> None:
    seen: list[int] = []
    Syscalls({"look": lambda _: seen.append(threading.get_native_id())}).run("look")
    assert seen == [threading.get_native_id()]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_namespace_is_where_it_runs(threads: int) -> None:
    with Namespace("elsewhere") as namespace:
        seen: list[int] = []
        inode = Path("/proc/thread-self/ns/net")
        look = Syscalls({"look": lambda _: seen.append(inode.stat().st_ino)})
        look.run("look", 4, threads=threads, namespace=namespace)
        assert seen == [namespace.inode] * threads
        ran, connected = counted(
            "connect",
            lambda: Syscalls().connect(10, threads=threads, namespace=namespace),
            whole=True,
        )
        assert (ran.failures, connected) == (0, 10)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_cgroup_is_where_it_runs(threads: int) -> None:
    path = Path("/proc/thread-self/cgroup")
    before = path.read_text("ascii")
    seen: list[str] = []
    look = Syscalls({"look": lambda _: seen.append(path.read_text("ascii"))})
    with Cgroup() as cgroup, Namespace("elsewhere") as namespace:
        look.run("look", threads=threads, cgroup=cgroup, namespace=namespace)
        assert len(seen) == threads
        assert all(cgroup.path.name in lines for lines in seen)
        assert path.read_text("ascii") == before


def test_a_call_that_the_kernel_refuses_is_a_failure() -> None:
    code = b"".join(struct.pack("<BBhi", *i) for i in ((0xB7, 0, 0, 0), EXIT))
    options = LoadOptions(ctypes.sizeof(LoadOptions), 0, INET4_CONNECT)
    arguments = (SOCK_ADDR, b"refuse", b"GPL", code, 2, ctypes.byref(options))
    with Cgroup() as cgroup:
        program = libbpf.call("bpf_prog_load", *arguments)
        link = libbpf.call("bpf_link_create", program, cgroup.fileno(), INET4_CONNECT, None)
        try:
            ran = Syscalls().connect(20, cgroup=cgroup)
            assert (ran.count, ran.failures) == (20, 20)
            assert Syscalls().connect(20).failures == 0
        finally:
            os.close(link)
            os.close(program)


def test_a_workload_says_how_many_failed() -> None:
    calls = 0

    def every_other(count: int) -> int:
        nonlocal calls
        calls += count
        return count // 2

    ran = Syscalls({"every other": every_other}).run("every other", 10)
    assert (ran.count, ran.failures, calls) == (10, 5, 10)


def test_a_workload_that_raises_raises_for_the_caller_and_leaves_no_thread() -> None:
    before = threading.active_count()

    def fail(_: int) -> None:
        raise LookupError

    for threads in (1, 2):
        with pytest.raises(LookupError):
            Syscalls({"fail": fail}).run("fail", threads=threads)
    assert threading.active_count() == before


def test_threads_start_together() -> None:
    start: list[float] = []

    def look(_: int) -> None:
        start.append(time.perf_counter())
        barrier.wait(timeout=120)

    barrier = threading.Barrier(4)  # passes only when all four run at the same time
    Syscalls({"look": look}).run("look", 4, threads=4)
    assert len(start) == 4


def test_names() -> None:
    calls = Syscalls({"mine": lambda _: None})
    assert set(NUMBERS) | {"mine"} == set(calls.names)
    assert all(callable(getattr(calls, name)) for name in NUMBERS)
    with pytest.raises(UnknownNameError) as raised:
        calls.run("opena")
    assert str(raised.value) == "there is no workload 'opena'; did you mean 'openat'?"


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (lambda s: s.read(-1), "count is -1; it must be at least 0"),
        (lambda s: s.read(size=-1), "read: size is -1; it must be 0 to 1073741824"),
        (lambda s: s.mmap(size=0), "mmap: size is 0; it must be 1 to 1073741824"),
        (lambda s: s.getpid(threads=0), "threads is 0; it must be 1 to 1024"),
        (lambda s: s.getpid(cpus=()), "cpus is empty; name a CPU, or leave it out"),
        (lambda s: s.getpid(cpus=[100_000]), "CPU 100000 cannot be used: this process may run on "),
    ],
)
def test_nonsense_is_one_sentence(run: Callable[[Syscalls], object], sentence: str) -> None:
    with pytest.raises(StimulusError) as raised:
        run(Syscalls())
    assert str(raised.value).startswith(sentence)


def test_nothing_stays_open() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    calls = Syscalls()
    before = descriptors(), threading.active_count()
    for name in NUMBERS:
        calls.run(name, 3)
        calls.run(name, 3, threads=2)
    assert (descriptors(), threading.active_count()) == before
