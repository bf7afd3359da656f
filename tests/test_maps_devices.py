"""Device maps and CPU maps: interfaces of namespaces, and programs behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import MapError, PlaceError, ValueTypeError
from pytest_bpf.kernel.maps.elements import possible_cpus
from pytest_bpf.netns import Interface, Namespace, Topology, router

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
#define MAP(name, kind, V) struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, 8); \\
    __type(key, __u32); __type(value, V); } name SEC(".maps")
MAP(ports, DEVMAP, __u32);
MAP(ports_hash, DEVMAP_HASH, __u32);
MAP(ports_with, DEVMAP, struct bpf_devmap_val);
MAP(ports_hash_with, DEVMAP_HASH, struct bpf_devmap_val);
MAP(cpus, CPUMAP, struct bpf_cpumap_val);
__u64 arrived, seen;
#define REDIRECT(name) \\
    SEC("xdp") int to_##name(struct xdp_md *ctx) { return bpf_redirect_map(&name, 0, 0); }
REDIRECT(ports) REDIRECT(ports_hash) REDIRECT(ports_with) REDIRECT(ports_hash_with)
SEC("xdp") int pass(struct xdp_md *ctx) { __sync_fetch_and_add(&arrived, 1); return XDP_PASS; }
SEC("xdp/devmap") int leave(struct xdp_md *ctx) { __sync_fetch_and_add(&seen, 1); return XDP_PASS; }
SEC("xdp/cpumap") int on_cpu(struct xdp_md *ctx) { return XDP_PASS; }
"""
DEVMAPS = ["ports", "ports_hash", "ports_with", "ports_hash_with"]


@pytest.fixture
def obj(load: Load) -> Object:
    return load(SOURCE)


@pytest.fixture
def routed() -> Iterator[Topology]:
    with router() as topology:
        yield topology


@pytest.mark.parametrize("how", ["setitem", "put", "update", "update_many", "dict"])
@pytest.mark.parametrize("name", DEVMAPS)
def test_an_interface_is_that_of_its_namespace(
    obj: Object, routed: Topology, name: str, how: str
) -> None:
    left, middle, right = routed
    ports, iface = obj.maps[name], middle.interfaces["right"]
    if how == "setitem":
        ports[0] = iface
    elif how == "put":
        ports.put(0, iface, "any")
    elif how == "update":
        ports.update({0: iface})
    elif how == "update_many":
        assert ports.update_many([0, 1], [iface, middle.interfaces["left"]]) == 2
    else:
        ports[0] = {"ifindex": iface} if name.endswith("with") else iface
    obj.programs["pass"].attach(right.iface)
    obj.programs[f"to_{name}"].attach(middle.interfaces["left"])
    left.traffic.udp(to=right, count=10)
    assert obj.globals["arrived"] == 10
    if how != "update_many":
        assert ports == {0: iface}
        assert ports[0] == iface
        assert ports[0] != middle.interfaces["left"]


def test_a_program_in_a_device_map_runs_when_packets_leave(obj: Object, routed: Topology) -> None:
    left, middle, right = routed
    ports, iface, leave = obj.maps["ports_with"], middle.interfaces["right"], obj.programs["leave"]
    obj.programs["pass"].attach(right.iface)
    obj.programs["to_ports_with"].attach(middle.interfaces["left"])
    forms: list[Any] = [
        (iface, leave),
        {"ifindex": iface, "bpf_prog": leave},
        {"ifindex": iface, "bpf_prog": {"fd": leave.fd}},
    ]
    for count, form in enumerate(forms, 1):
        ports[0] = form
        assert ports[0].ifindex == iface.ifindex
        assert ports[0].bpf_prog.id == leave.id
        assert ports[0] == (iface, leave)
        assert ports[0] != iface
        left.traffic.udp(to=right, count=5)
        assert (obj.globals["seen"], obj.globals["arrived"]) == (5 * count, 5 * count)


def test_a_value_that_was_read_can_be_written(obj: Object) -> None:
    cpus, on_cpu = obj.maps["cpus"], obj.programs["on_cpu"]
    cpus[0] = (192, on_cpu)
    assert cpus[0] == (192, {"id": on_cpu.id})
    cpus[0] = cpus[0]
    assert cpus[0].bpf_prog.id == on_cpu.id
    assert cpus == {0: (192, on_cpu)}
    cpus[0] = 64
    assert cpus[0].bpf_prog.id == 0
    assert cpus == {0: 64}
    assert cpus[0] == 64
    assert cpus[0] not in (65, (64, on_cpu), None, "64")


@pytest.mark.parametrize("name", DEVMAPS)
def test_what_is_no_interface_is_one_sentence(obj: Object, name: str) -> None:
    ports = obj.maps[name]
    with pytest.raises(MapError, match="there is no such interface in the network namespace"):
        ports[0] = 987_654
    with pytest.raises(ValueTypeError, match=f"map '{name}', value"):
        ports[0] = "eth0"
    with pytest.raises(ValueTypeError, match=f"map '{name}', value"):
        ports[0] = {"ifndex": 1}
    with pytest.raises(ValueTypeError, match="program"):
        ports[0] = (1, "leave")
    with Namespace("gone") as gone:
        iface = Interface("eth0", 2, "", gone)
    with pytest.raises(PlaceError, match="closed"):
        ports[0] = iface


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ports", "eth0", "value: a devmap takes an Interface, or its index, not str 'eth0'"),
        ("ports_hash_with", "lo", "a devmap_hash takes an Interface, or its index, not str 'lo'"),
        ("cpus", "192", "a cpumap takes the size of a queue, not str '192'"),
        ("ports_with", (1, "pass"), r'a devmap runs a program of SEC\("xdp/devmap"\), and .pass. '),
        ("ports_with", (1, "on_cpu"), "and 'on_cpu' is one of xdp_cpumap"),
        ("ports_hash_with", {"ifindex": 1, "bpf_prog": "pass"}, "and 'pass' is one of xdp$"),
        ("cpus", (192, "leave"), r'a cpumap runs a program of SEC\("xdp/cpumap"\), and .leave. '),
    ],
)
def test_what_does_not_belong_there_is_named(
    obj: Object, name: str, value: Any, words: str
) -> None:
    if isinstance(value, tuple):
        value = (value[0], obj.programs[value[1]])
    elif isinstance(value, dict):
        value = {**value, "bpf_prog": obj.programs[value["bpf_prog"]]}
    with pytest.raises((MapError, ValueTypeError), match=words):
        obj.maps[name][0] = value


def test_a_cpu_and_a_queue_that_there_cannot_be(obj: Object) -> None:
    with pytest.raises(MapError, match="a queue of a CPU has at most 16384 elements"):
        obj.maps["cpus"][0] = 20000
    many = [key for key in range(8) if key >= possible_cpus()]
    if not many:
        pytest.skip("every key of this map is a CPU of this machine")
    with pytest.raises(MapError, match="the key is a CPU, and there is no such CPU"):
        obj.maps["cpus"][many[0]] = 192
