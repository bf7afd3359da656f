"""Maps that a test creates itself, and the maps in maps of maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import MapError, UnknownNameError, ValueTypeError
from pytest_bpf.loader import Loader
from pytest_bpf.objects import Map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
struct stats { __u64 packets; char name[8]; };
#define INNER(KIND, N) __array(values, struct { __uint(type, BPF_MAP_TYPE_##KIND); \\
  __uint(max_entries, N); __type(key, __u32); __type(value, struct stats); })
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
  INNER(HASH, 8); } tenants SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
  INNER(ARRAY, 2); } tables SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, struct stats); } flows SEC(".maps");
SEC("syscall") int p(void *ctx) {
  __u32 outer = 9, key = 1;
  void *inner = bpf_map_lookup_elem(&tenants, &outer);
  struct stats *value = inner ? bpf_map_lookup_elem(inner, &key) : 0;
  return value ? value->packets : -1;
}
SEC("raw_tp") int use(void *ctx) { __u32 key = 0; return bpf_map_lookup_elem(&flows, &key) ||
  bpf_map_lookup_elem(&tables, &key); }
"""


@pytest.fixture
def bpf() -> Iterator[Loader]:
    with Loader() as loader:
        yield loader


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(SOURCE)


@pytest.mark.parametrize(
    ("kind", "key", "value", "elements"),
    [
        ("hash", "u32", "u64", {1: 2}),
        ("lru_hash", "char[16]", "u32[2]", {"abc": (1, 2)}),
        ("percpu_hash", "u8[4]", "long", {"192.0.2.1": -5}),
        ("array", None, "__be32", {0: "192.0.2.1"}),
        ("percpu_array", "u32", "int", {0: -1}),
        ("hash", "unsigned  int", "char [2][4]", {7: ("ab", "cd")}),
        ("hash", "bool", "double", {True: 0.5}),
        ("lpm_trie", "u8[8]", "u64", {b"\x18\0\0\0\xc0\0\x02\0": 24}),
        ("hash", "u32", "void *", {1: 2**63}),
    ],
)
def test_a_map_is_typed_by_names(
    bpf: Loader, kind: str, key: str | None, value: str, elements: dict[Any, Any]
) -> None:
    created = bpf.create_map(kind, key=key, value=value, max_entries=1)
    created.update(elements)
    assert created == elements
    assert (created.type, created.max_entries) == (kind, 1)


def test_types_come_from_what_was_loaded(bpf: Loader, obj: Object) -> None:
    stats = bpf.create_map("hash", key="u32", value="struct stats", max_entries=4, types=obj)
    stats[1] = {"packets": 5, "name": "x"}
    assert stats == {1: (5, "x")}
    with pytest.raises(UnknownNameError, match="did you mean 'stats'"):
        bpf.create_map("hash", key="u32", value="struct stast", max_entries=4, types=obj)
    with pytest.raises(UnknownNameError, match="no object that was loaded has it"):
        bpf.create_map("hash", key="u32", value="struct stats", max_entries=4)


def test_kinds_that_say_their_sizes_need_no_types(bpf: Loader) -> None:
    for kind in ("prog_array", "perf_event_array", "cgroup_array", "sockmap", "xskmap", "devmap"):
        assert bpf.create_map(kind, max_entries=2).key_size == 4
    assert bpf.create_map("stack_trace", max_entries=2).value_size == 8 * 127
    assert bpf.create_map("ringbuf", max_entries=4096).max_entries == 4096
    queue = bpf.create_map("queue", value="u64", max_entries=2)
    queue.push(7)
    assert queue.pop() == 7


def test_a_created_map_takes_the_place_of_a_declared_one(bpf: Loader, load: Load) -> None:
    flows = bpf.create_map("lru_hash", key="u32", value="u64[2]", max_entries=4)
    flows[0] = (1, 2)
    obj = load(SOURCE, maps={"flows": flows})
    assert obj.maps["flows"][0].packets == 1
    assert obj.programs["use"].test_run().retval == 1


def test_sections_of_globals_are_maps(load: Load) -> None:
    obj = load(
        """
const volatile int limit = 5; const int table[3] = {1, 2, 3};
int number = 7; char name[8] = "abc"; long zero; struct pair { int a, b; } hot SEC(".data.hot");
SEC("raw_tp") int p(void *ctx) { zero += hot.a + table[number & 1]; return limit + name[0]; }
""",
        globals={"limit": 6},
    )
    assert obj.maps[".data"][0] == {"number": 7, "name": "abc"}
    assert obj.maps[".rodata"][0].limit == 6
    assert obj.maps[".rodata"][0].table == [1, 2, 3]
    obj.maps[".data.hot"][0] = {"hot": (3, 4)}
    assert obj.globals["hot"] == (3, 4)
    assert obj.programs["p"].test_run().retval == 6 + ord("a")
    assert obj.maps[".bss"][0].zero == 5
    assert list(obj.maps) == []
    with pytest.raises(MapError, match="frozen or read-only"):
        obj.maps[".rodata"][0] = obj.maps[".rodata"][0]
    with pytest.raises(UnknownNameError, match=r"no map '.dat'; did you mean '.data'"):
        obj.maps[".dat"]


def test_it_is_gone_with_its_loader() -> None:
    with Loader() as bpf:
        number = bpf.create_map("hash", key="u32", value="u64", max_entries=1).id
    with pytest.raises(MapError):
        Map.from_id(number)


def test_an_inner_map_is_made_from_a_dict(obj: Object) -> None:
    tenants = obj.maps["tenants"]
    tenants[9] = {1: (5, "five"), 2: {"packets": 6}}
    assert tenants[9][1].packets == 5
    assert tenants[9] == {1: {"packets": 5, "name": "five"}, 2: (6, "")}
    assert tenants == {9: {1: (5, "five"), 2: (6, "")}}
    assert obj.programs["p"].test_run().retval == 5
    tenants.update({3: {}, 4: {1: (1, "")}})
    assert len(tenants[3]) == 0
    tenants[9] = {}
    assert len(tenants[9]) == 0
    obj.maps["tables"][0] = {1: (7, "seven")}
    assert obj.maps["tables"][0][1] == (7, "seven")
    with pytest.raises(ValueTypeError, match=r"map 'tenants\[9\]', value.packets: -1"):
        tenants[9] = {1: (-1, "")}
    with pytest.raises(MapError, match=r"'tables\[0\]' .*past the end, max_entries is 2"):
        obj.maps["tables"][0] = {2: (1, "")}


def test_maps_of_maps_are_made_with_a_map_like_those_they_hold(bpf: Loader) -> None:
    inner = bpf.create_map("hash", key="u32", value="u64", max_entries=8)
    outer = bpf.create_map("hash_of_maps", key="char[8]", max_entries=2, inner=inner)
    inner[1] = 2
    outer["mine"] = inner
    outer["new"] = {3: 4}
    assert outer == {"mine": {1: 2}, "new": {3: 4}}
    other = bpf.create_map("hash", key="u64", value="u64", max_entries=8)
    with pytest.raises(MapError, match=r"takes .*a map like its inner map"):
        outer["mine"] = other
    with pytest.raises(MapError, match="is not known here"):
        Map.from_id(outer.id)["mine"] = {1: 2}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"kind": "hsah"}, UnknownNameError, "there is no map type 'hsah'; did you mean 'hash'"),
        ({"kind": "hash"}, MapError, "a hash map needs the type of its keys"),
        ({"kind": "hash", "key": "u32"}, MapError, "a hash map needs the type of its values"),
        ({"kind": "hash", "key": "u32", "value": "u64"}, MapError, "max_entries is 0, and it must"),
        ({"kind": "hash", "key": "u[", "value": "u64"}, ValueTypeError, "is no C type"),
        ({"kind": "hash", "key": "u33", "value": "u64"}, UnknownNameError, "no type 'u33'"),
        ({"kind": "array", "value": "u64", "max_entries": "4"}, ValueTypeError, "max_entries must"),
        ({"kind": "array", "value": "u64", "max_entries": -1}, ValueTypeError, "max_entries must"),
        ({"kind": "array", "key": "u64", "value": "u64", "max_entries": 1}, MapError, "key_size 4"),
        ({"kind": "ringbuf", "max_entries": 100}, MapError, "a power of two and at least 4096"),
        ({"kind": "array_of_maps", "max_entries": 1}, MapError, "give inner=, a map like those"),
        ({"kind": "array_of_maps", "max_entries": 1, "inner": 5}, ValueTypeError, "inner must be"),
        ({"kind": "sk_storage", "value": "u64"}, MapError, "declare it in a source"),
        (
            {"kind": "array", "value": "u64[8192]", "max_entries": 2**31},
            MapError,
            "GB of memory are available; the largest is .*set a smaller max_entries",
        ),
        (
            {"kind": "percpu_array", "value": "u64[512]", "max_entries": 2**31 + 4},
            MapError,
            "kernels crash on per-CPU arrays of more than .* set a smaller max_entries",
        ),
    ],
)
def test_what_cannot_be_created_is_one_sentence(
    bpf: Loader, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        bpf.create_map(**arguments)
    assert "\n" not in str(raised.value)


def test_a_value_is_read_and_written_under_its_lock(load: Load) -> None:
    obj = load("""
struct locked { struct bpf_spin_lock lock; __u32 a; __u64 b; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, struct locked); } locked SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, __u64); } plain SEC(".maps");
SEC("tc") int add(struct __sk_buff *ctx) {
  __u32 key = 1; struct locked *value = bpf_map_lookup_elem(&locked, &key);
  if (!value) return 1;
  bpf_spin_lock(&value->lock); value->a++; value->b++; bpf_spin_unlock(&value->lock);
  return 0;
}
""")
    locked, plain = obj.maps["locked"], obj.maps["plain"]
    locked.put(1, {"a": 1, "b": 2})
    locked.put(1, {"a": 5, "b": 6}, lock=True)
    assert obj.programs["add"].test_run(bytes(64)).retval == 0
    assert locked.get(1, lock=True) == {"a": 6, "b": 7}
    assert locked.get(2, lock=True) is None
    plain[1] = 1
    for locking in (lambda: plain.get(1, lock=True), lambda: plain.put(1, 2, lock=True)):
        with pytest.raises(MapError, match="lock=True takes a value with a struct bpf_spin_lock"):
            locking()


COMMANDS = """
struct command { __u32 add; char name[4]; };
struct { __uint(type, BPF_MAP_TYPE_USER_RINGBUF); __uint(max_entries, 4096); }
  commands SEC(".maps");
__u64 sum, count; struct command last;
static long each(struct bpf_dynptr *dynptr, void *ctx) {
  struct command command;
  if (bpf_dynptr_read(&command, sizeof(command), dynptr, 0, 0)) return 0;
  sum += command.add; count++; last = command;
  return 0;
}
SEC("syscall") int drain(void *ctx) { return bpf_user_ringbuf_drain(&commands, each, NULL, 0); }
"""


def test_a_program_drains_what_python_writes_into_a_user_ring_buffer(load: Load) -> None:
    obj = load(COMMANDS)
    commands, drain = obj.maps["commands"], obj.programs["drain"]
    for number in range(1, 6):
        commands.push({"add": number, "name": "abc"}, "struct command")
    commands.push(b"\x0a\0\0\0xyz\0")
    assert drain.test_run().retval == 6
    assert (obj.globals["sum"], obj.globals["count"]) == (25, 6)
    assert obj.globals["last"] == (10, "xyz")
    for _ in range(4096 // 16):
        commands.push(bytes(8))
    with pytest.raises(MapError, match=r"its 4096 bytes are full until a program drains it"):
        commands.push(bytes(8))
    drain.test_run()
    commands.push(bytes(8))
    with pytest.raises(MapError, match="declares no type: give bytes"):
        commands.push({"add": 1})
    with pytest.raises(UnknownNameError, match="did you mean 'command'"):
        commands.push({"add": 1}, "struct comand")
    with pytest.raises(MapError, match="a record has 1 to 4088 bytes, not 5000"):
        commands.push(bytes(5000))
    obj.close()
    with pytest.raises(MapError, match="is gone"):
        commands.push(bytes(8))


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("hash", {"key": "u3"}, "there is no type 'u3'; did you mean 'u32'"),
        ("hash", {"flags": 1 << 30}, "do its flags, 0x40000000, go with this kind"),
        ("percpu_array", {"value": "char[40000]"}, "at most 32768 bytes for each CPU, not 40000"),
        ("hash", {"max_entries": 2**31}, "map 'hash_map': its maps would take"),
    ],
)
def test_a_map_that_cannot_be_says_why(kind: str, options: dict[str, Any], words: str) -> None:
    with Loader() as bpf, pytest.raises((MapError, UnknownNameError), match=words):
        bpf.create_map(kind, **{"key": "u32", "value": "u32", "max_entries": 1, **options})


def test_a_pin_with_a_dot_says_so() -> None:
    with Loader() as bpf:
        numbers = bpf.create_map("hash", key="u32", value="u32", max_entries=1)
        with pytest.raises(MapError, match="a bpf file system takes no dots in names"):
            numbers.pin(bpf.pins / "a.b")
        with pytest.raises(MapError, match="that is on no bpf file system"):
            numbers.pin("/run/numbers")
