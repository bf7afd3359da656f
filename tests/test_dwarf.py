"""The types of an object that only its DWARF knows, and the signs that old compilers left out."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.compile import Compiler, compile_source, find_compiler
from pytest_bpf.errors import BpfError, LoadError, UnknownNameError
from pytest_bpf.kernel.btf import Array, Enumeration, Int, Struct
from pytest_bpf.kernel.btf.dwarf import Dwarf, read_dwarf

if TYPE_CHECKING:
    from pytest_bpf.loader import Loader

TYPES = """
typedef unsigned int __u32;
typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
static long (*map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
enum outcome { REFUSED = -1, IDLE = 0, TAKEN = 1 };
enum flags { TOP = 0x80000000u, LOW = 1 };
enum wide { LARGE = 1ULL << 40, ONE = 1 };
enum __attribute__((packed)) tiny { MINUS = -2, PLUS = 2 };
typedef enum { NONE, GONE = -5 } unnamed_t;
struct all { enum outcome outcome; enum tiny tiny; unnamed_t unnamed; enum wide wide;
  enum flags flags;
  enum outcome bits : 4; enum outcome many[2]; };
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, enum outcome);
  __type(value, __u64); }
  tally SEC(".maps");
struct all values = { REFUSED, MINUS, GONE, LARGE, TOP, REFUSED, { REFUSED, TAKEN } };
enum outcome last = REFUSED;
struct hidden { int number; char name[8]; int grid[2][3]; struct hidden *next;
  union { int whole; struct { short low, high; }; }; unsigned odd : 3; char rest[]; };
SEC("raw_tp") int count(void *ctx) {
  enum outcome key = REFUSED; __u64 value = 3; struct hidden local = {};
  struct hidden *volatile pointer = &local;
  map_update(&tally, &key, &value, 0);
  return last + pointer->number;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(params=["clang-14", "clang", "zig"])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    """Each of the compilers that are here: clang 14 writes no sign into BTF, newer ones do."""
    try:
        return find_compiler(request.param)
    except BpfError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def dwarf() -> Dwarf:
    return read_dwarf(compile_source(TYPES, name="types.c").object.read_bytes())


def test_enums_keep_their_signs_with_every_compiler(bpf: Loader, compiler: Compiler) -> None:
    obj = bpf.load(TYPES, name="signs", compiler=compiler)
    values = obj.globals["values"]
    assert values == {
        "outcome": -1,
        "tiny": -2,
        "unnamed": -5,
        "wide": 1 << 40,
        "flags": 0x80000000,
        "bits": -1,
        "many": (-1, 1),
    }
    names = [values.outcome.name, values.tiny.name, values.bits.name]
    assert names == ["REFUSED", "MINUS", "REFUSED"]
    assert [values.wide.name, values.flags.name] == ["LARGE", "TOP"]


def test_a_negative_enumerator_is_a_key_a_global_and_a_member(
    bpf: Loader, compiler: Compiler
) -> None:
    obj = bpf.load(TYPES, name="signs", globals={"last": "REFUSED"}, compiler=compiler)
    obj.programs["count"].test_run()
    assert obj.maps["tally"][-1] == obj.maps["tally"]["REFUSED"] == 3
    assert obj.maps["tally"] == {-1: 3}
    obj.globals["last"] = -1
    assert obj.globals["last"] == -1
    obj.globals["values"] = obj.globals["values"]
    assert obj.globals["values"].tiny == -2


def test_a_type_that_only_functions_use_has_its_members(dwarf: Dwarf) -> None:
    hidden = dwarf.find("struct hidden")
    assert isinstance(hidden, Struct)
    places = {member.name: member.bit_offset for member in hidden.flat_members()}
    assert places == {
        "number": 0,
        "name": 32,
        "grid": 96,
        "next": 320,
        "whole": 384,
        "low": 384,
        "high": 400,
        "odd": 416,
        "rest": 424,
    }
    assert hidden.members[2].type == Array(Array(Int("int", 4, signed=True), 3), 2)
    assert dwarf.find("hidden") == hidden


def test_names_are_looked_through_as_in_btf(dwarf: Dwarf) -> None:
    unnamed = dwarf.find("unnamed_t")
    assert isinstance(unnamed, Enumeration)
    assert (unnamed.name, unnamed.signed, dict(unnamed.members)["GONE"]) == ("unnamed_t", True, -5)
    assert dwarf.find("__u64") == Int("unsigned long long", 8)
    assert {"hidden", "all"} <= dwarf.names("struct")


def test_a_wrong_name_names_what_is_near(dwarf: Dwarf) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'hidden'"):
        dwarf.find("struct hiden")


def test_an_object_without_dwarf_says_so() -> None:
    bare = Dwarf(struct.pack("=16sHHI", b"\x7fELF\x02\x01\x01", 1, 247, 1) + bytes(40))
    assert bare.empty
    with pytest.raises(UnknownNameError, match="no DWARF; compile it with -g"):
        bare.find("struct hidden")


def test_damaged_dwarf_is_a_sentence_or_types() -> None:
    content = compile_source(TYPES, name="types.c").object.read_bytes()
    for at in range(64, len(content), max(1, len(content) // 150)):
        damaged = Dwarf(content[:at] + b"\xff" * 8 + content[at + 8 :])
        try:
            damaged.find("struct hidden")
            damaged.enumeration("outcome", ("REFUSED", "IDLE", "TAKEN"))
        except (LoadError, UnknownNameError) as error:
            assert "damaged" in str(error) or "there is no type" in str(error)  # noqa: PT017 (either)
