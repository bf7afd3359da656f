"""Many values of one type at once are the same as each by itself."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_bpf.kernel.values.columns import decode_all
from pytest_bpf.kernel.values.decoding import decoder
from pytest_bpf.kernel.values.dtypes import dtype

if TYPE_CHECKING:
    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
enum color { RED, GREEN = 7 };
enum big { BIG = 1ULL << 40 };
struct bits { __u32 low : 3; __s32 high : 5; __u64 wide : 40; _Bool set : 1; };
struct inner { char name[6]; __u16 n; };
struct text { char name[16]; __u8 octets[5]; signed char small[3]; char names[2][4]; };
struct nested { __u8 a; struct inner one; struct inner many[2]; struct { __s64 b; }; };
struct odd { __int128 huge; void *pointer; _Bool on; double real; float half; int table[2][3]; };
struct named { enum color color; enum big big; enum color colors[2]; struct bits bits; };
struct empty {};
struct flexible { __u32 n; char rest[]; };
union either { __u32 word; __u8 octets[4]; struct inner as; };
struct holder { union either raw; __u64 n; struct empty nothing; char none[0]; };
struct plain { __s8 a; __u64 b; __s32 c; };
#define KEEP(kind) struct kind kept_##kind;
KEEP(bits) KEEP(inner) KEEP(text) KEEP(nested) KEEP(odd) KEEP(named) KEEP(empty) KEEP(flexible)
KEEP(holder) KEEP(plain) union either kept_either; __u64 kept_u64; enum color kept_color;
SEC("raw_tp") int nothing(void *ctx) { return kept_u64; }
"""
TYPES = (
    *("bits", "inner", "text", "nested", "odd", "named", "empty", "flexible", "holder", "plain"),
    *("either", "u64", "color"),
)


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(SOURCE)


@pytest.mark.parametrize("name", TYPES)
def test_as_each_by_itself(obj: Object, name: str) -> None:
    of = obj.globals._places[f"kept_{name}"][0].type
    count = 300
    data = np.random.default_rng(1).integers(0, 256, count * of.size, np.uint8).tobytes()
    data = bytes(byte if at % 3 else byte % 8 for at, byte in enumerate(data))
    array = np.ndarray(count, dtype(of), data or b"\0")
    found = decode_all(of, array)
    expected = [decoder(of)(data, at * of.size) for at in range(count)]
    assert list(map(repr, found)) == list(map(repr, expected))
    assert {type(value) for value in found} == {type(value) for value in expected}


def test_none_at_all(obj: Object) -> None:
    for name in TYPES:
        of = obj.globals._places[f"kept_{name}"][0].type
        assert decode_all(of, np.zeros(0, dtype(of))) == []


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(obj: Object, *, enabled: bool) -> None:
    of = obj.globals._places["kept_plain"][0].type
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        decode_all(of, np.zeros(3, dtype(of)))
        with pytest.raises(TypeError):
            decode_all(of, None)  # type: ignore[arg-type]
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
