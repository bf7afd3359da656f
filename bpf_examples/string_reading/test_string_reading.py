"""A string of user space, read in four ways: when they agree, what fails, and what it costs.

The strings lie where a test puts them: in memory that ends with an unmapped page. The system calls
are made by libc itself, from that very address, so that nothing is copied on the way.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from threading import get_native_id
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.kernel.programs.run_time_stats import statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf import Loader, Object, Program
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.costs.run import Measure

WAYS = ["loop", "unrolled", "whole", "str"]
SIZE = 256
PAGE, PROT_NONE = mmap.PAGESIZE, 0
TEXT = bytes(33 + i % 94 for i in range(2 * SIZE))
"""Characters without a space or a zero."""

libc = ctypes.CDLL(None, use_errno=True)

hooks = pytest.mark.parametrize(
    "hook",
    [
        pytest.param("openat", marks=pytest.mark.bpf_requires(attach="tracepoint")),
        pytest.param("vfs_read", marks=pytest.mark.bpf_requires(attach="kprobe")),
    ],
)
ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def page() -> Iterator[int]:
    """Address of a page of zeros, which has been touched, and behind which nothing is mapped."""
    room = mmap.mmap(-1, 2 * PAGE)
    whole = ctypes.c_char.from_buffer(room)
    address = ctypes.addressof(whole)
    ctypes.memset(address, 0, 2 * PAGE)
    guard = ctypes.c_void_p(address + PAGE)
    assert libc.mprotect(guard, PAGE, PROT_NONE) == 0
    yield address
    del whole
    room.close()


@ways
@hooks
def test_every_length_is_read_alike(bpf: Loader, page: int, way: str, hook: str) -> None:
    with attached(bpf, way, hook) as (obj, use):
        for length in range(SIZE):
            use(put(TEXT[:length], page))
            assert read(obj) == TEXT[:length]


@ways
@hooks
def test_longer_strings_are_cut(bpf: Loader, page: int, way: str, hook: str) -> None:
    with attached(bpf, way, hook) as (obj, use):
        use(put(TEXT, page))
        assert read(obj) == TEXT[: SIZE - 1]


@hooks
@pytest.mark.parametrize("way", ["loop", "str"])
def test_string_at_the_end_of_memory_is_read(bpf: Loader, page: int, way: str, hook: str) -> None:
    with attached(bpf, way, hook) as (obj, use):
        for length in range(SIZE):
            use(put(TEXT[:length], page + PAGE - length - 1))
            assert read(obj) == TEXT[:length]
            assert max(obj.globals["result"], 1) == length + 1  # older kernels say 0 for ""


@hooks
@pytest.mark.parametrize("way", ["unrolled", "whole"])
def test_fixed_size_fails_at_the_end_of_memory(bpf: Loader, page: int, way: str, hook: str) -> None:
    with attached(bpf, way, hook) as (obj, use):
        for length in range(SIZE - 1):
            use(put(TEXT[:length], page + PAGE - length - 1))
            assert obj.globals["result"] == -errno.EFAULT
        use(put(TEXT[: SIZE - 1], page + PAGE - SIZE))  # the only one that fills it
        assert read(obj) == TEXT[: SIZE - 1]


@ways
@hooks
def test_what_is_not_mapped_is_an_error(bpf: Loader, page: int, way: str, hook: str) -> None:
    with attached(bpf, way, hook) as (obj, use):
        use(page + PAGE)
        assert obj.globals["result"] == -errno.EFAULT


def test_fixed_size_takes_along_what_lies_behind(bpf: Loader, page: int) -> None:
    put(b"path\0secret", page)
    behind = {}
    for way in ("whole", "str"):
        with attached(bpf, way, "openat") as (obj, use):
            use(page)
            behind[way] = b"secret" in bytes(obj.globals["string"])
    assert behind == {"whole": True, "str": False}


@pytest.mark.bpf_requires(attach="kprobe")
@ways
def test_at_the_entry_of_read_the_buffer_holds_what_was_there_before(
    bpf: Loader, page: int, way: str
) -> None:
    put(b"before", page)
    with attached(bpf, way, "vfs_read") as (obj, _):
        reading, writing = os.pipe()
        os.write(writing, b"arrived\0")
        assert libc.read(reading, ctypes.c_void_p(page), SIZE) == 8
        assert read(obj) == b"before"
        assert ctypes.string_at(page) == b"arrived"
        os.close(reading)
        os.close(writing)


@hooks
def test_one_call_spares_the_verifier_the_loop(bpf: Loader, hook: str) -> None:
    verified = {way: load(bpf, way, hook).programs[f"{way}_{hook}"].verified_insns for way in WAYS}
    assert verified["str"] <= verified["loop"] / 50
    assert verified["whole"] <= verified["loop"] / 50
    assert verified["str"] < verified["unrolled"] < verified["loop"]


@hooks
def test_one_call_costs_a_fraction_of_the_loop(bpf: Loader, page: int, hook: str) -> None:
    put(TEXT[: SIZE - 1], page)
    with (
        statistics(),
        attached(bpf, "loop", hook) as (old, use),
        attached(bpf, "str", hook) as (new, _),
    ):
        loop, one = old.programs[f"loop_{hook}"], new.programs[f"str_{hook}"]
        runs = [(spent(loop, use, page), spent(one, use, page)) for _ in range(51)]
    before, after = map(median, zip(*runs, strict=True))
    assert after <= 0.25 * before


@pytest.mark.bpf_claim(
    "sixteen reads of 16 bytes, or better one read, are cheaper than a loop over the bytes",
    row=2,
    verdict="holds in part",
)
@pytest.mark.bpf_requires(exact=True, attach="tracepoint")
def test_cheaper_than_the_loop(
    bpf: Loader, page: int, bpf_measure: Measure, bpf_claim: ClaimCheck
) -> None:
    cost = {}
    for way in WAYS:
        with attached(bpf, way, "openat") as (obj, use):
            for length in (8, 255):
                put(TEXT[:length], page)
                run = bpf_measure(
                    obj.programs[f"{way}_openat"], partial(often, use, page), batches=9
                )
                cost[way, length] = run.per_run
    assert cost["str", 8] <= 0.5 * cost["loop", 8]
    assert cost["str", 255] <= 0.1 * cost["loop", 255]
    bpf_claim(
        {
            f"{way}, {length} characters": cost[way, length] < cost["loop", length]
            for way in ("unrolled", "whole", "str")
            for length in (8, 255)
        },
        f"8 characters: {', '.join(f'{way} {cost[way, 8]:,.0f}' for way in WAYS)}",
        before=cost["loop", 255],
        after=cost["str", 255],
        unit="instructions for 255 characters",
    )


def load(bpf: Loader, way: str, hook: str) -> Object:
    """Load one way to read at one hook, for this thread's strings."""
    constants = {"tid": get_native_id()}
    return bpf.load("reading.bpf.c", programs=[f"{way}_{hook}"], globals=constants)


@contextmanager
def attached(bpf: Loader, way: str, hook: str) -> Iterator[tuple[Object, Callable[[int], object]]]:
    """Attach, and give the object and what passes an address to the kernel."""
    obj = load(bpf, way, hook)
    with obj.programs[f"{way}_{hook}"].attach(), Path(os.devnull).open("rb") as nothing:

        def openat(address: int) -> None:
            assert libc.openat(-1, ctypes.c_void_p(address), os.O_RDONLY) == -1

        def vfs_read(address: int) -> None:  # of nothing, so the buffer stays as it is
            libc.read(nothing.fileno(), ctypes.c_void_p(address), SIZE)

        yield obj, {"openat": openat, "vfs_read": vfs_read}[hook]


def often(use: Callable[[int], object], address: int) -> None:
    """Pass an address to the kernel a hundred times."""
    for _ in range(100):
        use(address)


def put(text: bytes, address: int) -> int:
    """Write a string and its zero to memory, and return where it is."""
    ctypes.memmove(address, text + b"\0", len(text) + 1)
    return address


def read(obj: Object) -> bytes:
    """Return the string that the program has read."""
    assert obj.globals["result"] >= 0
    return bytes(obj.globals["string"]).split(b"\0")[0]


def spent(program: Program, use: Callable[[int], object], address: int) -> int:
    """Return the ns that a program ran for one string."""
    before = program.run_time_ns
    use(address)
    return program.run_time_ns - before
