"""What can be written compares equal to what is read, in every form and place."""

from __future__ import annotations

import ipaddress
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import MapError, ValueTypeError
from pytest_bpf.netns import Interface

if TYPE_CHECKING:
    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
#define HASH(name, K, V) \\
    struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); \\
             __type(key, K); __type(value, V); } name SEC(".maps")
enum colour { RED, GREEN, CRIMSON = 0 };
struct in_addr4 { __be32 s_addr; };
struct in_addr6 { union { __u8 as8[16]; __be16 as16[8]; __be32 as32[4]; } u; };
struct host { enum colour colour; __u8 v4[4]; __u8 v6[16]; __u8 mac[6]; __be32 net; __u32 plain;
              struct in_addr4 in4; struct in_addr6 in6; __u32 words[4]; char name[8];
              __u16 ports[2]; };
HASH(hosts, __u32, struct host);
HASH(by_v6, __u8[16], __u32);
HASH(by_v4, __be32, enum colour);
HASH(by_colour, enum colour, __u8[4]);
HASH(names, char[8], char[8]);
HASH(ports, __u32, __u16[4]);
HASH(longs, __u64, __u64);
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 8); __type(key, struct { __u32 len; __u8 addr[4]; }); __type(value, __u64); }
  nets SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 8); __type(key, __u32);
  __type(value, struct host); } each SEC(".maps");
__be32 peer; __u8 peer6[16]; enum colour paint = GREEN; struct host here; char label[8];
__u32 numbers[3]; struct in_addr6 peer_in6;
SEC("raw_tp") int keep(void *ctx) { return peer + peer6[0] + paint + here.plain + label[0] +
  numbers[0] + peer_in6.u.as8[0]; }
"""

V4, V6, MAC = "192.0.2.1", "2001:db8::1", "02:00:00:00:00:2a"
P4, P6 = (ipaddress.ip_address(text).packed for text in (V4, V6))
HOST: dict[str, Any] = {
    "colour": "GREEN",
    "v4": V4,
    "v6": V6,
    "mac": MAC,
    "net": V4,
    "plain": ipaddress.ip_address(V4),
    "in4": V4,
    "in6": V6,
    "words": V6,
    "name": "router",
    "ports": [80, 443],
}


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(SOURCE)


def test_a_struct_equals_the_dict_that_it_was_written_by(obj: Object) -> None:
    hosts = obj.maps["hosts"]
    hosts[1] = HOST
    host = hosts[1]
    assert host == HOST == host
    assert host == {**HOST, "colour": 1, "v4": P4, "ports": (80, 443), "name": b"router"}
    assert host == tuple(HOST.values())
    assert host != {**HOST, "v4": "192.0.2.2"}
    assert host != {**HOST, "nane": 1}
    assert host != {"colour": "GREEN"}
    assert hosts == {1: HOST}
    assert hosts.copy() == {1: HOST}
    assert list(hosts.items()) == [(1, HOST)]
    assert HOST in list(hosts.values())
    assert hosts != {1: {**HOST, "mac": "02:00:00:00:00:2b"}}
    assert hosts != {2: HOST}
    assert hosts != {"1": HOST}
    hosts[2] = {"plain": 1}
    assert hosts[2] == {"plain": 1}, "what is left out is zero, as in C"
    hosts[1] = host
    assert hosts[1] == HOST
    assert pickle.loads(pickle.dumps(host)) == HOST


@pytest.mark.parametrize("member", [m for m in HOST if m != "plain"])
def test_a_member_equals_what_it_was_written_by(obj: Object, member: str) -> None:
    obj.maps["hosts"][1] = HOST
    value = getattr(obj.maps["hosts"][1], member)
    assert value == HOST[member]
    assert HOST[member] == value
    assert value != "nobody"
    assert value != 4_000_000_000
    assert value is not None
    assert pickle.loads(pickle.dumps(value)) == value


def test_addresses_as_objects_and_as_text_are_the_same(obj: Object) -> None:
    by_v6, by_v4 = obj.maps["by_v6"], obj.maps["by_v4"]
    by_v6[V6] = 1
    assert by_v6[ipaddress.ip_address(V6)] == by_v6[P6] == 1
    assert by_v6 == {V6: 1}
    assert by_v6 == {ipaddress.ip_address(V6): 1}
    assert list(by_v6) == [V6]
    assert list(by_v6) == [P6]
    by_v4[V4] = "GREEN"
    assert by_v4 == {V4: "GREEN"}
    assert list(by_v4) == [ipaddress.ip_address(V4)]
    assert V4 in by_v4
    assert by_v4.delete_many([V4]) == 1
    obj.maps["by_colour"]["GREEN"] = V4
    assert obj.maps["by_colour"] == {"GREEN": V4}
    assert dict(obj.maps["by_colour"].items())[1] == V4


def test_aliases_and_numbers_of_an_enum_are_equal(obj: Object) -> None:
    obj.maps["by_v4"][0] = "CRIMSON"
    read = obj.maps["by_v4"][0]
    assert (read.name, read) == ("RED", "CRIMSON")
    assert read == "RED"
    assert read == 0
    assert read != "GREEN"
    assert len({read, 0}) == 1
    obj.maps["by_v4"].clear()


def test_globals_equal_what_they_were_written_by(obj: Object) -> None:
    written = {
        "peer": V4,
        "peer6": V6,
        "paint": "RED",
        "here": HOST,
        "label": "abc",
        "peer_in6": V6,
    }
    obj.globals.update(written)
    obj.globals["numbers"] = [1, 2, 3]
    for name, value in written.items():
        assert obj.globals[name] == value
    assert obj.globals["numbers"] == [1, 2, 3] == list(obj.globals["numbers"])
    assert obj.globals["peer6"] == ipaddress.ip_address(V6)


def test_keys_of_a_trie_equal_text_networks_and_structs(obj: Object) -> None:
    nets = obj.maps["nets"]
    nets.update({"192.0.2.0/24": 25, "198.51.100.7": 32})
    assert nets == {"192.0.2.0/24": 25, ipaddress.ip_address("198.51.100.7"): 32}
    assert nets == {(24, "192.0.2.0"): 25, b"\x20\0\0\0" + bytes([198, 51, 100, 7]): 32}
    assert set(map(str, nets)) == {"192.0.2.0/24", "198.51.100.7/32"}
    assert sorted(nets) == ["192.0.2.0/24", "198.51.100.7"]
    assert min(nets) == ipaddress.ip_network("192.0.2.0/24")
    assert repr(min(nets)) == "IPv4Network('192.0.2.0/24')"
    assert nets != {"192.0.2.0/25": 25, "198.51.100.7": 32}
    with pytest.raises(ValueTypeError, match="16 bytes of address, this trie's keys have 4"):
        nets["::1"] = 1
    with pytest.raises(ValueTypeError, match="has host bits set"):
        nets["192.0.2.1/24"] = 1


def test_a_value_for_all_cpus_is_equal_to_each_of_them(obj: Object) -> None:
    each = obj.maps["each"]
    each[1] = HOST
    assert each[1] == HOST
    assert each == {1: HOST}
    assert each[1] == [HOST] * len(each[1])
    assert each[1] == tuple(each[1])
    assert each[1] != [HOST]
    assert each[1] != {**HOST, "plain": 0}


def test_bytes_behind_a_nul_are_kept(obj: Object) -> None:
    names = obj.maps["names"]
    names["a"] = b"ab\0cd"
    value = names["a"]
    assert value == "ab"
    assert bytes(value) == b"ab\0cd\0\0\0"
    assert value == b"ab\0cd"
    assert value != b"ab"
    names["b"] = value
    assert bytes(names["b"]) == bytes(value)
    assert [bytes(name) for _, name in sorted(names.items())] == [bytes(value)] * 2
    names.update_many(names.snapshot())
    assert bytes(names["a"]) == bytes(value)
    assert bytes(pickle.loads(pickle.dumps(value))) == bytes(value)
    obj.globals["here"] = {"name": b"x\0yz"}
    obj.globals["here"] = obj.globals["here"]
    assert bytes(obj.globals["here"].name) == b"x\0yz\0\0\0\0"


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("by_v6", V4, 1, "the address 192.0.2.1 has 4 bytes, (unsigned char|__u8).16. has 16"),
        ("by_v6", "2001:db8::g", 1, "'2001:db8::g' is no IPv6 address"),
        ("by_v6", "fe80::1%eth0", 1, "has a scope"),
        ("by_v4", "192.0.2.300", 0, "takes an int, not str '192.0.2.300', and that is no address"),
        ("by_v4", V6, 0, "the address 2001:db8::1 has 16 bytes, __be32 has 4"),
        ("by_v4", ipaddress.ip_interface("192.0.2.1/24"), 0, "has a prefix"),
        ("longs", MAC, 0, "the address 02:00:00:00:00:2a has 6 bytes"),
        ("longs", V4, 0, "the address 192.0.2.1 has 4 bytes"),
        ("by_colour", V4, V4, "enum colour has no '192.0.2.1'"),
        ("ports", 1, "80", "takes a sequence"),
        ("ports", 1, [80, 65536], r"value\[1\]: 65536 does not fit"),
        ("ports", 1, [1] * 5, "5 elements given"),
        ("hosts", 1, {"mac": V4}, r"value.mac: the address 192.0.2.1 has 4 bytes"),
        ("hosts", 1, V4, "takes a dict of"),
        ("names", "a", ipaddress.ip_address(V4), "has 4 bytes, char.8. has 8"),
    ],
)
def test_what_is_no_such_address_is_one_sentence(
    obj: Object, name: str, key: Any, value: Any, words: str
) -> None:
    with pytest.raises(ValueTypeError, match=words) as error:
        obj.maps[name][key] = value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [0, None, 1.5, "ab", b"ab", [1], [(1, 2, 3)], object()])
def test_what_is_no_mapping_is_one_sentence(obj: Object, wrong: Any) -> None:
    with pytest.raises(ValueTypeError, match=r"^map 'longs': .* not "):
        obj.maps["longs"].update(wrong)
    with pytest.raises(MapError, match=r"flag .* is none of any, noexist, exist"):
        obj.maps["longs"].put(1, 1, flag=wrong)


@pytest.mark.parametrize("wrong", [0, None, 1.5, "ab", b"ab", object()])
def test_what_is_no_list_of_keys_is_one_sentence(obj: Object, wrong: Any) -> None:
    with pytest.raises(ValueTypeError, match=r"^map 'longs': keys must be an iterable, not "):
        obj.maps["longs"].update_many(wrong, [1])
    with pytest.raises(ValueTypeError, match=r"^map 'longs': keys must be an iterable, not "):
        obj.maps["longs"].delete_many(wrong)


@pytest.mark.parametrize("name", ["longs", "hosts", "names", "ports", "by_v6", "nets", "each"])
@pytest.mark.parametrize(
    "wrong", [10**4000, int, 1e308, float("nan"), {1, 2}, 1j, object(), Ellipsis]
)
def test_what_is_no_value_at_all_is_one_sentence(obj: Object, name: str, wrong: Any) -> None:
    of = obj.maps[name]
    key = {"by_v6": V6, "nets": V4, "names": "a"}.get(name, 1)
    with pytest.raises(ValueTypeError, match=f"^map '{name}', value") as error:
        of[key] = wrong
    assert len(str(error.value)) < 300
    with pytest.raises(ValueTypeError, match=f"^map '{name}', key"):
        of[wrong] = 1
    assert of != {key: wrong}
    with pytest.raises(ValueTypeError, match="a pin is a path"):
        of.pin(wrong)


SHAPES = """
enum neg { MINUS = -5, ZERO };
struct shapes { char names[2][4]; int grid[2][3]; char label[8]; __u8 v6[16]; };
struct trie_key { __u32 len; struct in6_addr addr; };
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 8); __type(key, struct trie_key); __type(value, struct in6_addr); }
  nets SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 8); __type(key, struct { __u32 len; __u8 mac[6]; }); __type(value, __u32); }
  macs SEC(".maps");
#define BY_CPU(name, V) struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \\
  __uint(max_entries, 2); __type(key, __u32); __type(value, V); } name SEC(".maps")
BY_CPU(counts, __u64);
BY_CPU(moods, enum neg);
BY_CPU(pairs, struct in6_addr);
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
  __type(value, enum neg); } ar SEC(".maps");
struct shapes shaped;
SEC("raw_tp") int look(void *ctx) { return shaped.grid[0][0]; }
"""


@pytest.fixture(scope="module")
def shapes(load_once: Load) -> Object:
    return load_once(SHAPES)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"names": "abcd"}, r"shaped'.names: char\[2\]\[4\] takes a sequence, not str 'abcd'"),
        ({"grid": [[1], [2], [3]]}, r"shaped'.grid: 3 elements given, int\[2\]\[3\] has 2"),
        ({"v6": "fe80::1%eth0"}, "shaped'.v6: the address fe80::1%eth0 has a scope"),
        ({"v6": ipaddress.ip_interface("2001:db8::1/64")}, "shaped'.v6: the address .* use .ip$"),
    ],
)
def test_an_error_names_place_and_type_as_c_does(
    shapes: Object, value: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueTypeError, match=words):
        shapes.globals["shaped"] = value


def test_text_equals_the_numbers_that_wrote_it(shapes: Object) -> None:
    shapes.globals["shaped"] = {"label": [97, 98, 0, 99]}
    label = shapes.globals["shaped"].label
    assert label == [97, 98, 0, 99] == label
    assert label != [97, 98]
    assert label != [97, 300]
    assert label == "ab"


@pytest.mark.parametrize("one", [False, True])
def test_a_snapshot_of_unions_goes_back(shapes: Object, one: bool) -> None:
    nets = shapes.maps["nets"]
    nets["2001:db8::/32"] = V6
    whole = nets.snapshot()
    nets.clear()
    if one:
        nets[whole["key"][0]] = whole["value"][0]
    else:
        nets.update_many(whole)
    assert nets == {"2001:db8::/32": V6}
    assert nets.delete_many(whole["key"]) == 1


def test_keys_that_are_no_networks_say_what_they_take(shapes: Object) -> None:
    macs = shapes.maps["macs"]
    macs[24, MAC] = 1
    assert macs[{"len": 48, "mac": MAC}] == 1
    with pytest.raises(ValueTypeError, match="takes a dict of len, mac, not str '02:00:"):
        macs[f"{MAC}/24"] = 1


def test_values_by_cpu_in_every_form(shapes: Object) -> None:
    import numpy as np

    counts, moods, pairs = (shapes.maps[name] for name in ("counts", "moods", "pairs"))
    cpus = len(counts[0])
    each = list(range(cpus))
    for form in (each, tuple(each), np.arange(cpus), np.arange(cpus, dtype="u8")):
        counts[0] = 7
        counts[0] = form
        assert counts[0] == each
        assert counts == {0: form}
    moods[1] = tuple(["MINUS"] * cpus)
    assert moods == {1: "MINUS"}
    pairs[1] = [V6] * cpus
    assert pairs == {1: V6}
    with pytest.raises(ValueTypeError, match=f"a list has one value for each of the {cpus} poss"):
        counts[0] = {0: 1}
    with pytest.raises(MapError, match=f"{cpus + 1} values given, there are {cpus}"):
        counts[0] = (*each, 1)


def test_elements_of_an_array_that_are_left_out_are_zero(shapes: Object) -> None:
    ar = shapes.maps["ar"]
    assert ar == {1: 0} == {1: ar[0]}
    ar[2] = "MINUS"
    assert ar == {2: "MINUS"}
    assert ar == {0: 0, 2: -5}
    assert ar.copy() == {2: -5}
    assert ar != {}
    assert ar != {2: 0}
    assert ar != {1: 0}
    assert ar != {2: -5, 4: 0}
    ar[2] = 0
    assert ar == {}


def test_an_interface_is_its_index(shapes: Object) -> None:
    iface = Interface("eth0", 7, "", None)  # type: ignore[arg-type]
    ar, counts = shapes.maps["ar"], shapes.maps["counts"]
    ar[1] = iface
    assert ar == {1: iface}
    assert ar == {1: 7}
    counts[1] = iface
    assert counts[1][0] == 7
    shapes.globals["shaped"] = {"grid": [[iface]]}
    assert shapes.globals["shaped"].grid[0][0] == 7
    assert shapes.globals["shaped"] == {"grid": [[iface]]}
