"""Values by BTF, both ways, through a real map: what is written is what is read."""

from __future__ import annotations

import ipaddress
import pickle
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_bpf.compile import find_compiler
from pytest_bpf.errors import LoadError, UnavailableError, ValueTypeError
from pytest_bpf.kernel.btf import Int, Struct
from pytest_bpf.kernel.values.codec import Record, codec

if TYPE_CHECKING:
    from pytest_bpf.objects import Map, Object
    from tests.conftest import Load

ARRAY = """
#define ARRAY(name, T) \\
    struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); \\
             __type(key, __u32); __type(value, T); } name SEC(".maps")
"""
TYPES = """
enum colour { RED = 1, GREEN = 2, BLUE = 40 };
struct numbers {
    __u8 u8; __s8 s8; __u16 u16; __s16 s16; __u32 u32; __s32 s32; __u64 u64; __s64 s64;
    bool yes; __int128 big; unsigned __int128 ubig; float single; double twice;
};
struct enums { enum colour colour; __u32 after; };
struct bits { unsigned a : 3; int b : 5; __u64 c : 40; bool d : 1; enum colour e : 6; __u16 f; };
struct packed { __u32 a : 5; __u32 b : 30; __u8 c : 3; } __attribute__((packed));
struct inner { __u16 x; __u64 y; };
struct nested { __u8 tag; struct inner one; struct inner many[2]; struct { __u32 deep; }; };
union either { __u32 word; __u8 bytes[4]; struct { __u16 low, high; } halves; };
struct unions { union either named; union { __u64 wide; char text[4]; }; __u8 kind; };
struct arrays {
    char name[8]; unsigned char raw[4]; signed char small[2]; __u16 grid[2][3]; bool flags[2];
    char names[2][4]; struct inner inside[0];
};
struct pointers { void *any; struct inner *one; const char *text; };
struct padded { __u8 first; __u64 second; __u8 third; };

"""
DECLARED = """
ARRAY(numbers, struct numbers);
ARRAY(enums, struct enums);
ARRAY(bits, struct bits);
ARRAY(packed, struct packed);
ARRAY(nested, struct nested);
ARRAY(unions, struct unions);
ARRAY(either, union either);
ARRAY(arrays, struct arrays);
ARRAY(pointers, struct pointers);
ARRAY(padded, struct padded);
"""
SOURCE = ARRAY + TYPES + DECLARED


@pytest.fixture(scope="module")
def maps(load_once: Load) -> Object:
    return load_once(SOURCE)


def written(of: Map, value: Any) -> Any:
    of[1] = value
    return of[1]


LIMITS = {
    "u8": (0, 2**8 - 1),
    "s8": (-(2**7), 2**7 - 1),
    "u16": (0, 2**16 - 1),
    "s16": (-(2**15), 2**15 - 1),
    "u32": (0, 2**32 - 1),
    "s32": (-(2**31), 2**31 - 1),
    "u64": (0, 2**64 - 1),
    "s64": (-(2**63), 2**63 - 1),
    "big": (-(2**127), 2**127 - 1),
    "ubig": (0, 2**128 - 1),
}


@pytest.mark.parametrize("name", LIMITS)
def test_integers_reach_their_limits_and_not_beyond(maps: Object, name: str) -> None:
    for value in LIMITS[name]:
        assert written(maps.maps["numbers"], {name: value})._asdict()[name] == value
    for value in (LIMITS[name][0] - 1, LIMITS[name][1] + 1):
        with pytest.raises(ValueTypeError, match=rf"value\.{name}: {value} does not fit"):
            maps.maps["numbers"][1] = {name: value}


def test_other_scalars(maps: Object) -> None:
    numbers = maps.maps["numbers"]
    value = written(numbers, {"yes": True, "single": 0.5, "twice": -1e300, "u8": True})
    assert (value.yes, value.single, value.twice, value.u8) == (True, 0.5, -1e300, 1)
    assert value.yes is True
    assert written(numbers, {}).yes is False
    refused = [("yes", 2), ("single", 1e39), ("u8", 1.0), ("u8", "1"), ("twice", "1"), ("u8", None)]
    for name, bad in refused:
        with pytest.raises(ValueTypeError, match=name):
            numbers[1] = {name: bad}


def test_enums_by_value_and_by_name(maps: Object) -> None:
    enums = maps.maps["enums"]
    value = written(enums, {"colour": "BLUE", "after": 1})
    assert value.colour.name == "BLUE"
    assert value == (40, 1)
    unnamed = written(enums, {"colour": 3})
    assert unnamed == (3, 0)
    assert not hasattr(unnamed.colour, "name")
    assert written(enums, value) == value
    with pytest.raises(ValueTypeError, match="enum colour has no 'GREN'; did you mean 'GREEN'"):
        enums[1] = {"colour": "GREN"}


def test_enums_that_are_signed_or_wide(load: Load) -> None:
    """As clang emits them since 15: BTF_KIND_ENUM64, and the signed flag."""
    source = (
        """
enum level { LOW = -5, HIGH = 5 };
enum wide { NARROW = 1, WIDE = 0x1122334455667788 };
enum deep { ABYSS = -0x1122334455667788, SURFACE = 0 };
struct enums { enum level level; enum wide wide; enum deep deep; };
"""
        + ARRAY
        + "ARRAY(enums, struct enums);"
    )
    try:
        zig = find_compiler("zig")
    except UnavailableError:
        pytest.skip("no zig cc: clang 14 does not emit such enums")
    enums = load(source, compiler=zig).maps["enums"]
    value = written(enums, {"level": "LOW", "wide": "WIDE", "deep": "ABYSS"})
    assert [member.name for member in value] == ["LOW", "WIDE", "ABYSS"]
    assert value == (-5, 0x1122334455667788, -0x1122334455667788)
    assert written(enums, (-(2**31), 2**64 - 1, -(2**63))) == (-(2**31), 2**64 - 1, -(2**63))


def test_bit_fields_beside_each_other(maps: Object) -> None:
    bits = maps.maps["bits"]
    value = written(bits, {"a": 7, "b": -16, "c": 2**40 - 1, "d": True, "e": "BLUE", "f": 9})
    assert value == (7, -16, 2**40 - 1, True, 40, 9)
    assert value.d is True
    assert value.e.name == "BLUE"
    assert written(bits, {"b": 15, "d": False}) == (0, 15, 0, False, 0, 0)
    for name, bad in (("a", 8), ("b", 16), ("b", -17), ("c", -1), ("d", 2), ("e", "BLU")):
        with pytest.raises(ValueTypeError, match=f"value.{name}"):
            bits[1] = {name: bad}


@settings(max_examples=60, deadline=None)
@given(
    values=st.tuples(
        *(st.integers(0, 7), st.integers(-16, 15), st.integers(0, 2**40 - 1)),
        *(st.booleans(), st.integers(0, 63), st.integers(0, 2**16 - 1)),
    ),
    packed=st.tuples(st.integers(0, 31), st.integers(0, 2**30 - 1), st.integers(0, 7)),
)
def test_bit_fields_come_back(
    maps: Object, values: tuple[int, ...], packed: tuple[int, ...]
) -> None:
    assert written(maps.maps["bits"], values) == values
    assert written(maps.maps["packed"], packed) == packed


def test_the_compiler_agrees_about_bit_fields(load: Load) -> None:
    text = SOURCE + 'SEC("raw_tp") int set(void *ctx) { __u32 key = 0;' + (
        "struct bits *b = bpf_map_lookup_elem(&bits, &key); if (!b) return 1;"
        "b->a = 5; b->b = -3; b->c = 0x1234567890; b->d = 1; b->e = 40; b->f = 77; "
        "return 0; }"
    )  # fmt: skip
    obj = load(text)
    assert obj.programs["set"].test_run().retval == 0
    assert obj.maps["bits"][0] == (5, -3, 0x1234567890, True, 40, 77)


def test_structs_in_structs(maps: Object) -> None:
    nested = maps.maps["nested"]
    value = written(nested, {"tag": 1, "one": (2, 3), "many": [{"x": 4}, (5, 6)], "deep": 7})
    assert value == (1, (2, 3), ((4, 0), (5, 6)), 7)
    assert value == {"tag": 1, "one": {"x": 2, "y": 3}, "many": ((4, 0), (5, 6)), "deep": 7}
    assert value.many[1].y == 6
    assert value._asdict()["one"] == {"x": 2, "y": 3}
    assert written(nested, value) == value
    assert pickle.loads(pickle.dumps(value)) == value
    with pytest.raises(ValueTypeError, match=r"value\.many\[1\]\.x: 65536 does not fit"):
        nested[1] = {"many": [(0, 0), (65536, 0)]}
    with pytest.raises(ValueTypeError, match="3 elements given, struct inner"):
        nested[1] = {"many": [(0, 0)] * 3}


def test_unions_are_views_of_the_same_bytes(maps: Object) -> None:
    either = maps.maps["either"]
    value = written(either, {"halves": {"low": 0x201, "high": 0x403}})
    assert (value.word, value.bytes, value.halves) == (0x4030201, b"\1\2\3\4", (0x201, 0x403))
    assert written(either, value) == value
    with pytest.raises(ValueTypeError, match="takes one member, not 2"):
        either[1] = {"word": 1, "bytes": b""}
    unions = maps.maps["unions"]
    value = written(unions, {"named": {"word": 5}, "wide": 0x4142004344, "kind": 1})
    assert value.text == "DC"
    assert written(unions, value) == value
    assert value.wide == 0x4142004344
    assert written(unions, {"text": "DC", "wide": 0x4344}).wide == 0x4344
    with pytest.raises(ValueTypeError, match="has 'wide' in the same bytes as another member"):
        unions[1] = {"wide": 1, "text": "DC"}
    assert value != {"named": {"word": 5}, "wide": 1, "text": "DC", "kind": 1}


def test_arrays_of_characters_bytes_and_numbers(maps: Object) -> None:
    arrays = maps.maps["arrays"]
    value = written(
        arrays,
        {
            "name": "eightchr", "raw": b"\0\1\0", "small": (-1, 1), "names": ("ab", "cd"),
            "grid": ((1, 2, 3), (4, 5, 65535)), "flags": (True, False),
        },
    )  # fmt: skip
    assert value.name == "eightchr"
    assert value.raw == b"\0\1\0\0"
    assert value.small == (-1, 1)
    assert value.grid == ((1, 2, 3), (4, 5, 65535))
    assert value.flags == (True, False)
    assert value.names == ("ab", "cd")
    assert value.inside == ()
    assert written(arrays, {"name": b"ab\0cd", "raw": [1, 2]})[:2] == ("ab", b"\1\2\0\0")
    undecodable = written(arrays, {"name": b"\xff\xfe"}).name
    assert (
        written(arrays, {"name": undecodable}).name.encode(errors="surrogateescape") == b"\xff\xfe"
    )
    for bad, words in (
        ({"name": "ninechars"}, r"9 bytes given, char\[8\] has 8"),
        ({"raw": b"x" * 5}, r"5 bytes given, unsigned char\[4\]|__u8\[4\]"),
        ({"raw": "x" * 5}, "'xxxxx' is no IPv4 address.*for the text itself give bytes"),
        ({"raw": [300]}, "takes bytes, not list"),
        ({"name": 5}, "takes bytes, not int 5"),
        ({"small": "ab"}, "takes a sequence, not str"),
        ({"grid": ((1,) * 4,)}, "4 elements given"),
    ):
        with pytest.raises(ValueTypeError, match=words):
            arrays[1] = bad


def test_pointers_are_addresses(maps: Object) -> None:
    value = written(maps.maps["pointers"], {"any": 2**64 - 1, "one": 0x1000})
    assert value == (2**64 - 1, 0x1000, 0)


KPTRS = """
struct held { struct task_struct __attribute__((btf_type_tag("kptr"))) *task; __u32 n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1000); __type(key, __u32);
         __type(value, struct held); } slots SEC(".maps");
SEC("raw_tp") int use(void *ctx) { __u32 key = 0; return bpf_map_lookup_elem(&slots, &key) != 0; }
"""


def test_pointers_of_the_kernel_in_a_map_are_not_shown(load: Load) -> None:
    try:
        slots = load(KPTRS).maps["slots"]
    except LoadError:
        pytest.skip("this kernel has no kptrs")
    slots[0] = {"n": 5}
    assert slots[0].task is None, "the kernel gives 0 for whatever is there"
    assert slots[0] == {"task": None, "n": 5}
    assert dict(slots)[0] == (None, 5)
    slots[0] = slots[0]
    with pytest.raises(ValueTypeError, match=r"value.task: a kptr, which programs alone set"):
        slots[0] = {"task": 1}


def test_padding_is_zero_and_raw_bytes_are_taken_whole(maps: Object) -> None:
    padded = maps.maps["padded"]
    padded[1] = b"\xff" * 24
    assert padded[1] == (255, 2**64 - 1, 255)
    padded[1] = padded[1]
    raw = dict(padded.raw_items())[struct.pack("=I", 1)]
    assert raw == b"\xff" + bytes(7) + b"\xff" * 9 + bytes(7)
    with pytest.raises(ValueTypeError, match="23 raw bytes given, struct padded has 24"):
        padded[1] = bytes(23)


def test_what_does_not_fit_a_struct_says_what_does(maps: Object) -> None:
    padded = maps.maps["padded"]
    for bad, words in (
        ({"frist": 1}, "struct padded has no member 'frist'; did you mean 'first'"),
        ((1, 2), "2 members given, struct padded has 3: first, second, third"),
        ("abc", "takes a dict of first, second, third, not str 'abc'"),
        (7, "not int 7"),
        (None, "not NoneType None"),
    ):
        with pytest.raises(ValueTypeError, match=words):
            padded[1] = bad
    with pytest.raises(AttributeError, match="padded has no member 'frist'; did you mean 'first'"):
        _ = padded[1].frist


def test_numpy_values_are_taken(maps: Object) -> None:
    numbers, nested = maps.maps["numbers"], maps.maps["nested"]
    assert written(numbers, {"u8": np.uint8(7), "yes": np.bool_(True), "single": np.float32(0.5)})
    assert (numbers[1].u8, numbers[1].yes, numbers[1].single) == (7, True, 0.5)
    nested[0] = {"tag": 3, "many": [(1, 2), (3, 4)]}
    nested[1] = nested.snapshot()[0]["value"]
    assert nested[1] == nested[0]
    maps.maps["arrays"][1] = {"grid": np.arange(6, dtype=np.uint16).reshape(2, 3)}
    assert maps.maps["arrays"][1].grid == ((0, 1, 2), (3, 4, 5))


def test_snapshots_have_the_layout_of_c(maps: Object) -> None:
    for name, of in maps.maps.items():
        of[1] = (
            bytes(range(1, of.value_size + 1)) if name != "numbers" else {"s16": -2, "yes": True}
        )
        snapshot = of.snapshot()
        assert snapshot["value"].dtype.itemsize == of.value_size
        assert snapshot["value"][1].tobytes() == dict(of.raw_items())[struct.pack("=I", 1)]
    assert maps.maps["numbers"].snapshot()["value"][1]["s16"] == -2
    assert maps.maps["nested"].snapshot()["value"]["many"].shape == (2, 2)
    assert maps.maps["packed"].snapshot()["value"].dtype.names == ("bits0",)
    assert maps.maps["bits"].snapshot()["value"].dtype.names == ("f", "bits0")


def test_addresses_fit_numbers_and_bytes() -> None:
    address = ipaddress.ip_address("192.0.2.1")
    assert codec(Int("__be32", 4)).encode(address, "x") == address.packed
    assert Record.__eq__(codec(Struct("empty", 0, ())).decode(b"", 0), ())
