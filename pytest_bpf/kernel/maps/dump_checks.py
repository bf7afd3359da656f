"""What a dump program checks while it walks through a hash map that may be changing.

The kernel's walk takes no lock. Three things go wrong when somebody writes meanwhile: an element
that is replaced goes to the head of its bucket, behind the walk, and is left out; one that is seen
before it is replaced and after is there twice; one that is deleted and used again leads the walk
into another bucket. So each element counts only if, after it was copied, it is where it should be::

    if (next is the end of the last bucket) {
            twice = false;
            bucket = &htab->buckets[element->hash & (htab->n_buckets - 1)];
            if (bucket <= the last one || bucket->head != element)
                    goto astray;
            first = element; second = element->next;
    } else {
            twice = !memcmp(row->key, first->key, key_size);         // replaced by the first
            if (element != next || element's bucket is not the last one)
                    goto astray;                                     // it is elsewhere by now
            if (bucket->head != first || first->next != second)
                    goto astray;                                     // something came before it
    }
    next = element->next;
    if (memcmp(row->key, element->key, key_size))
            goto astray;                                             // it was used again
    if (twice)
            return 0;

A program that was led astray stops with the count `ASTRAY`. Pointers come from
``bpf_rdonly_cast`` (6.2), offsets from the kernel's BTF. A chain ends with twice the number of its
bucket, plus one (``linux/list_nulls.h``).

The elements of a large map lie all over the memory, and the walk waits for each. So at the first
of a bucket a word is read of some that come later, which nobody waits for: they are near when it
is their turn.
"""

from __future__ import annotations

from functools import cache

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.btf import Kind
from pytest_bpf.kernel.btf.offsets import kernel_struct, member_offset
from pytest_bpf.kernel.programs.assembly import (
    DIFFERENT,
    EQUAL,
    GREATER,
    add,
    call_kfunc,
    copy,
    either,
    leave,
    masked,
    move,
    plus,
    read,
    store,
    times,
    unless,
    widths,
    write,
)
from pytest_bpf.kernel.programs.load import btf_id

ASTRAY = 0xFFFFFFFF
"""The count of a walk that cannot be trusted."""

COUNT, FIRST, SECOND, NEXT, BUCKET, MASK, BUCKETS, PROGRESS = range(0, 64, 8)
"""Offsets in what the callback knows of the walk so far, on the main function's stack; its size."""

TWICE, HERE = -8, -16
"""Where on its stack the callback keeps what no register does."""

LARGE = 32_768
"""Elements from which on they are not in the processor's caches anyway."""

AHEAD = ((16, 1), (17, 1), (8, 2))
"""How many buckets ahead to fetch elements, and how many of a bucket: when the second one's turn
comes, the first is near.
"""

STACK = 10
"""The register that is the stack's end."""


def begin(target: bytes) -> bytes:
    """Fill in the progress; ``target`` loads the map's address into R1."""
    code = target + _cast("bpf_htab")
    code += read(1, 0, member_offset("bpf_htab", "buckets")) + write(STACK, -PROGRESS + BUCKETS, 1)
    code += read(1, 0, member_offset("bpf_htab", "n_buckets"), 4) + add(1, -1)
    code += write(STACK, -PROGRESS + MASK, 1)
    start = {BUCKET: -1, NEXT: -1, FIRST: 0, SECOND: 0}
    return code + b"".join(store(-PROGRESS + at, value) for at, value in start.items())


def check(key_size: int, elements: int) -> bytes:
    """Check the element that was copied, of so many ``elements``; what follows counts it.

    R6 is its key, R8 the progress, R9 the row. R7 becomes the element.
    """
    key = member_offset("htab_elem", "key")
    begins = _where() + read(4, 8, BUCKET)
    begins += unless(GREATER, 3, 4, _astray()) + unless(EQUAL, 0, 7, _astray())
    begins += write(8, BUCKET, 3) + write(8, FIRST, 7) + write(8, SECOND, 1)
    begins += _fetch_ahead() if elements >= LARGE else b""
    goes_on = read(1, 8, FIRST) + _cast("htab_elem")
    goes_on += _same_key(key, key_size, store(TWICE, 1)) + _where()
    for register, expected in ((7, NEXT), (3, BUCKET), (0, FIRST)):
        goes_on += read(4, 8, expected) + unless(EQUAL, register, 4, _astray())
    goes_on += write(STACK, HERE, 1) + copy(1, 0) + _cast("htab_elem") + read(2, 0, 0)
    goes_on += read(4, 8, SECOND) + unless(EQUAL, 2, 4, _astray()) + read(1, STACK, HERE)
    code = copy(1, 6) + add(1, -key) + _cast("htab_elem") + copy(7, 0) + store(TWICE, 0)
    code += read(4, 8, BUCKET) + plus(4, 4) + add(4, 1) + read(5, 8, NEXT)
    code += either(DIFFERENT, 5, 4, begins, goes_on) + write(8, NEXT, 1)
    for at, width in widths(key_size):
        code += read(1, 6, at, width) + read(2, 9, at, width) + unless(EQUAL, 1, 2, _astray())
    once = read(1, STACK, TWICE) + move(2, 0)
    return code + once + unless(EQUAL, 1, 2, move(0, 0) + leave())


def _where() -> bytes:
    """Put an element's bucket into R3, what follows it into R1, the bucket's head into R0.

    R7 is the element. What follows is read before the head: what is inserted later changes that.
    """
    if member_offset("htab_elem", "hash_node"):
        raise UnavailableError("struct htab_elem does not begin with its hash_node")
    code = read(3, 7, member_offset("htab_elem", "hash"), 4) + read(2, 8, MASK) + masked(3, 2)
    code += write(STACK, HERE, 3) + copy(1, 3) + _bucket()
    return code + read(1, 7, 0) + read(0, 0, member_offset("bucket", "head")) + read(3, STACK, HERE)


def _bucket() -> bytes:
    """Make R0 the bucket whose number is in R1."""
    size = kernel_struct("bucket").size
    return times(1, size) + read(2, 8, BUCKETS) + plus(1, 2) + _cast("bucket")


def _fetch_ahead() -> bytes:
    """Read a word of elements that are to come, when the walk has begun a bucket; R1 stays."""
    code = write(STACK, HERE, 1)
    for buckets, elements in AHEAD:
        code += read(1, 8, BUCKET) + add(1, buckets) + read(2, 8, MASK) + masked(1, 2) + _bucket()
        code += copy(1, 0) + add(1, member_offset("bucket", "head")) + _follow(elements)
    return code + read(1, STACK, HERE)


def _follow(elements: int) -> bytes:
    """Read the word at R1, and as long as it is an address and no end, the word there."""
    code = _cast("timespec64") + read(1, 0, 0)  # a struct that begins with a number
    if not elements:
        return code
    odd = copy(2, 1) + move(3, 1) + masked(2, 3)
    return code + odd + unless(EQUAL, 2, 3, _follow(elements - 1))


def _same_key(key: int, key_size: int, done: bytes) -> bytes:
    """Do ``done`` if the row R9 has the key of the element R0, which lies ``key`` bytes into it."""
    for at, width in reversed(list(widths(key_size))):
        words = read(1, 9, at, width) + read(2, 0, key + at, width)
        done = words + unless(DIFFERENT, 1, 2, done)
    return done


def _astray() -> bytes:
    return move(1, -1) + write(8, COUNT, 1) + move(0, 1) + leave()


@cache
def _cast(name: str) -> bytes:
    """Make R0 a pointer to a struct of the kernel from the address in R1; costs nothing.

    Kept, because looking for a type goes through all of the kernel's.
    """
    kind = btf_id(name, Kind.STRUCT)
    function = btf_id("bpf_rdonly_cast", Kind.FUNC)
    if not function or not kind:
        raise UnavailableError(f"this kernel has no bpf_rdonly_cast() or no struct {name}")
    return move(2, kind) + call_kfunc(function)
