"""What the kernel refuses of maps, as one sentence for each kind."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import LoadError, MapError
from pytest_bpf.kernel.maps import elements
from pytest_bpf.kinds.maps import MAPS, map_kind
from pytest_bpf.objects.maps.refusals import Sizes, creation_problem, explain, explain_creation

if TYPE_CHECKING:
    from tests.conftest import Load

GOOD = {
    "hash": Sizes(4, 4, 4),
    "array": Sizes(4, 4, 4),
    "percpu_array": Sizes(4, 4, 4),
    "lru_hash": Sizes(4, 4, 4),
    "prog_array": Sizes(4, 4, 4),
    "perf_event_array": Sizes(4, 4, 4),
    "stack_trace": Sizes(4, 64, 4),
    "cgroup_array": Sizes(4, 4, 4),
    "lpm_trie": Sizes(8, 4, 4, 1),
    "devmap": Sizes(4, 8, 4),
    "devmap_hash": Sizes(4, 4, 4),
    "cpumap": Sizes(4, 4, 4),
    "sockmap": Sizes(4, 8, 4),
    "sockhash": Sizes(8, 8, 4),
    "xskmap": Sizes(4, 4, 4),
    "queue": Sizes(0, 4, 4),
    "stack": Sizes(0, 4, 4),
    "bloom_filter": Sizes(0, 4, 4),
    "ringbuf": Sizes(0, 0, 4096),
    "user_ringbuf": Sizes(0, 0, 4096),
    "cgroup_storage": Sizes(8, 4, 0),
}


def refusal(kind: str, sizes: Sizes) -> int:
    """Ask the kernel: return its error code, 0 when it creates the map."""
    try:
        fd = elements.create(kind, sizes.key_size, sizes.value_size, sizes.max_entries, sizes.flags)
    except OSError as error:
        return error.errno or 0
    os.close(fd)
    return 0


@pytest.mark.parametrize("kind", GOOD)
def test_the_table_and_the_kernel_agree_on_what_a_kind_takes(kind: str) -> None:
    good = GOOD[kind]
    assert refusal(kind, good) == 0
    assert creation_problem(map_kind(kind), good) == ""
    wrong = {
        "max_entries": Sizes(
            good.key_size, good.value_size, 0 if good.max_entries else 4, good.flags
        ),
        "key": Sizes(good.key_size + 3 if good.key_size else 4, good.value_size, 4, good.flags),
        "value": Sizes(good.key_size, good.value_size + 3 if good.value_size else 4, 4, good.flags),
        "flags": Sizes(good.key_size, good.value_size, good.max_entries, 0),
        "no value": Sizes(good.key_size, 0, good.max_entries, good.flags),
    }
    for name, sizes in wrong.items():
        code = refusal(kind, sizes)
        problem = creation_problem(map_kind(kind), sizes)
        assert bool(code) == bool(problem), f"{kind}, {name}, {sizes}: {code}, {problem!r}"
        if code:
            assert explain_creation(code, kind, sizes) == problem


@pytest.mark.parametrize(
    ("declaration", "words"),
    [
        ("HASH, 0, __u32", "max_entries is 0, and it must be at least 1"),
        ("ARRAY_OF_MAPS, 4, __u32", r"what it holds is not declared: __array\(values"),
        ("TASK_STORAGE, 0, __u32", r"a task_storage needs the flag BPF_F_NO_PREALLOC$"),
        ("ARRAY, 1, __u64", r"an array takes key_size 4, not 8 \(bytes\)"),
        ("LPM_TRIE, 1, __u64", "an lpm_trie needs the flag BPF_F_NO_PREALLOC"),
        ("STACK_TRACE, 1, __u32", "a stack_trace takes values of whole addresses of 8 bytes"),
    ],
)
def test_a_map_that_cannot_be_created_says_why(load: Load, declaration: str, words: str) -> None:
    source = """
#define MAP(kind, entries, K) struct { __uint(type, BPF_MAP_TYPE_##kind); \\
    __uint(max_entries, entries); __type(key, K); __type(value, __u32); }
MAP(DECLARATION) m SEC(".maps");
SEC("raw_tp") int p(void *ctx) { return (long)&m & 1; }
"""
    with pytest.raises(LoadError, match=f"map 'm' .*cannot be created: {words}"):
        load(source.replace("DECLARATION", declaration))


def test_what_a_map_is_declared_with_is_checked(load: Load) -> None:
    field = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entry, 1); __type(key, __u32);
         __type(value, __u32); } m SEC(".maps");
"""
    with pytest.raises(LoadError, match="unknown field 'max_entry'; did you mean 'max_entries'"):
        load(field)
    with pytest.raises(LoadError, match="no kind of map with the number 99"):
        load(field.replace("max_entry,", "max_entries,").replace("BPF_MAP_TYPE_ARRAY", "99"))


def test_a_sockmap_without_room_for_cookies_is_not_full(load: Load) -> None:
    sockets = load("""
struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(max_entries, 4); __type(key, __u32);
  __type(value, __u32); } sockets SEC(".maps");
SEC("raw_tp") int p(void *ctx) { return 0; }
""").maps["sockets"]
    for read in (lambda: sockets[0], lambda: dict(sockets)):
        with pytest.raises(MapError, match="cookies, which takes values of 8 bytes"):
            read()
    with socket.socket(socket.AF_UNIX) as unconnected, pytest.raises(MapError) as error:
        sockets[0] = unconnected
    assert "full" not in str(error.value)
    with pytest.raises(MapError, match="there is no socket at that key"):
        del sockets[0]


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("action", ["look-up", "update", "deletion", "reading", "freezing"])
def test_no_code_is_a_bare_number(kind: str, action: str) -> None:
    for code in (*errno.errorcode, 512, 517, 521, 524, 527):
        sentence = explain(code, kind, action, 7)
        assert not sentence.strip().isdigit()
        assert "524" not in sentence
        assert "{" not in sentence
