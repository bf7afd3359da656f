"""Maps of the kinds that do more than keep values under keys."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cgroup import Cgroup
from pytest_bpf.errors import MapError, ValueTypeError
from pytest_bpf.netns import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
#define MAP(name, kind, entries, more...) \\
    struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, entries); more } \\
    name SEC(".maps")
#define K(T) __type(key, T);
#define V(T) __type(value, T);
struct v4 { __u32 length; __u8 address[4]; };
struct v6 { __u32 length; struct in6_addr address; };
struct by_port { __u32 length; __u16 port; };
struct pair { __u32 a; __u64 b; };
#define NO_PREALLOC __uint(map_flags, BPF_F_NO_PREALLOC);
MAP(routes, LPM_TRIE, 10, K(struct v4) V(__u32) NO_PREALLOC);
MAP(routes6, LPM_TRIE, 10, K(struct v6) V(__u32) NO_PREALLOC);
MAP(ports, LPM_TRIE, 10, K(struct by_port) V(__u32) NO_PREALLOC);
MAP(queue, QUEUE, 3, V(struct pair));
MAP(stack, STACK, 3, V(struct pair));
MAP(bloom, BLOOM_FILTER, 100, V(struct pair));
MAP(devices, DEVMAP, 4, K(__u32) V(struct bpf_devmap_val));
MAP(device_hash, DEVMAP_HASH, 4, K(__u32) V(__u32));
MAP(cpus, CPUMAP, 2, K(__u32) V(struct bpf_cpumap_val));
MAP(sockets, SOCKMAP, 4, K(__u32) V(__u64));
MAP(socket_hash, SOCKHASH, 4, K(struct pair) V(__u64));
MAP(cgroups, CGROUP_ARRAY, 2, K(__u32) V(__u32));
MAP(stacks, STACK_TRACE, 4, K(__u32) __uint(value_size, 8 * 16););
MAP(memory, ARRAY, 700, K(__u32) V(struct pair) __uint(map_flags, BPF_F_MMAPABLE););
MAP(ring, RINGBUF, 4096, );
"""


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(SOURCE)


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


def test_the_longest_prefix_wins(obj: Object) -> None:
    routes = obj.maps["routes"]
    wide, narrow = map(ipaddress.ip_network, ("10.0.0.0/8", "10.1.0.0/16"))
    routes.update({wide: 8, "10.1.0.0/16": 16, "0.0.0.0/0": 0})
    assert routes[ipaddress.ip_address("10.1.2.3")] == 16
    assert routes["10.2.2.3"] == 8
    assert routes["192.0.2.1"] == 0
    assert routes[{"length": 24, "address": b"\x0a\x01\x02"}] == 16
    assert set(routes) == {wide, narrow, ipaddress.ip_network("0.0.0.0/0")}
    assert dict(routes)[narrow] == 16
    assert len(routes.snapshot()) == 3
    del routes["0.0.0.0/0"]
    with pytest.raises(KeyError):
        routes["192.0.2.1"]
    for bad, words in (
        ("10.0.0.1/8", "has host bits set"),
        ("2001:db8::/32", "IPv6 network has 16 bytes of address, this trie's keys have 4"),
        ("home", "does not appear to be an IPv4 or IPv6 network"),
        (5, "struct v4 takes a dict of length, address"),
    ):
        with pytest.raises(ValueTypeError, match=words):
            routes[bad] = 1
    with pytest.raises(MapError, match="full: max_entries is 10"):
        routes.update({f"172.16.{i}.0/24": i for i in range(20)})


def test_prefixes_of_ipv6_and_of_other_keys(obj: Object) -> None:
    routes, ports = obj.maps["routes6"], obj.maps["ports"]
    routes["2001:db8::/32"] = 1
    assert routes[ipaddress.ip_address("2001:db8::7")] == 1
    assert list(routes) == [ipaddress.ip_network("2001:db8::/32")]
    ports[{"length": 16, "port": 80}] = 5
    assert dict(ports) == {(16, 80): 5}


@pytest.mark.parametrize("kind", ["queue", "stack"])
def test_queues_and_stacks(obj: Object, kind: str) -> None:
    of = obj.maps[kind]
    for n in range(3):
        of.push((n, n))
    with pytest.raises(MapError, match=f"map '{kind}' .*: update failed: the map is full"):
        of.push((3, 3))
    order = [0, 1, 2] if kind == "queue" else [2, 1, 0]
    assert of.peek() == (order[0], order[0])
    assert [of.pop().a for _ in range(3)] == order
    for empty in (of.peek, of.pop):
        with pytest.raises(KeyError, match=f"{kind} '{kind}' is empty"):
            empty()
    for keyed in (lambda: of[0], lambda: of.put(0, (1, 1)), lambda: list(of), of.snapshot):
        with pytest.raises(MapError, match=f"is a {kind}: it has no keys, but push, peek and pop"):
            keyed()
    assert bool(of) is True


def test_a_bloom_filter_knows_what_was_pushed(obj: Object) -> None:
    bloom = obj.maps["bloom"]
    for n in range(50):
        bloom.push({"a": n})
    assert all({"a": n} in bloom for n in range(50))
    assert sum({"a": n, "b": 1} in bloom for n in range(100)) < 50
    with pytest.raises(MapError, match="it has no keys, but push and 'in'"):
        bloom[0]
    with pytest.raises(MapError, match="a bloom_filter and cannot be peeked at"):
        bloom.peek()
    with pytest.raises(MapError, match="it has no keys, but push and 'in'"):
        bloom.pop()


MAPS_OF_MAPS = """
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
               __type(value, struct pair); } first SEC(".maps"), second SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 3); __type(key, __u32);
         __array(values, struct inner); } table SEC(".maps") = { .values = { [1] = &first } };
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 3); __type(key, __u64);
         __array(values, struct inner); } by_number SEC(".maps");
SEC("raw_tp") int sum(void *ctx) {
    __u32 one = 1; void *inner = bpf_map_lookup_elem(&table, &one);
    struct pair *p = inner ? bpf_map_lookup_elem(inner, &one) : 0;
    return p ? p->a + p->b : -1;
}
"""


def test_maps_of_maps(load: Load) -> None:
    obj = load("struct pair { __u32 a; __u64 b; };" + MAPS_OF_MAPS)
    table, first, second = (obj.maps[name] for name in ("table", "first", "second"))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    table[1][1] = (2, 3)
    assert first == {1: (2, 3)}
    assert obj.programs["sum"].test_run().retval == 5
    assert table[1].id == first.id
    assert 0 not in table
    table[0] = second
    table[1] = second
    assert {key: of.id for key, of in table.items()} == {0: second.id, 1: second.id}
    obj.maps["by_number"][2**40] = first
    assert obj.maps["by_number"][2**40] == first
    assert table.snapshot()["value"].tolist() == [second.id] * 2
    with pytest.raises(ValueTypeError, match="array_of_maps takes something with a file desc"):
        table[0] = "first"
    with pytest.raises(
        MapError, match="an array_of_maps takes no flag but 'any', and a map like its inner"
    ):
        table[0] = obj.maps["by_number"]
    del table[0]
    assert 0 not in table
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_tail_call(load: Load) -> None:
    obj = load("""
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __type(key, __u32);
         __type(value, __u32); } jumps SEC(".maps");
SEC("xdp") int enter(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 1); return 11; }
SEC("xdp") int target(struct xdp_md *ctx) { return 22; }
SEC("raw_tp") int other(void *ctx) { return 0; }
""")
    jumps, enter = obj.maps["jumps"], obj.programs["enter"]
    assert enter.test_run(bytes(64)).retval == 11
    jumps[1] = obj.programs["target"]
    assert jumps[1] == obj.programs["target"]
    assert jumps[1] == obj.programs["target"].id
    assert jumps[1] not in (obj.programs["other"], "target", None)
    assert jumps == {1: obj.programs["target"]}
    assert jumps != {1: obj.programs["other"]}
    assert enter.test_run(bytes(64)).retval == 22
    assert dict(jumps) == {1: obj.programs["target"].id}
    del jumps[1]
    assert enter.test_run(bytes(64)).retval == 11
    with pytest.raises(
        MapError, match="a prog_array takes no flag but 'any', and a program of the same"
    ):
        jumps[0] = obj.programs["other"]
    with pytest.raises(MapError, match="the index is past the end, max_entries is 2"):
        jumps[2] = obj.programs["target"]


def test_devices_and_cpus(obj: Object, namespace: Namespace) -> None:
    devices, by_hash, cpus = (obj.maps[name] for name in ("devices", "device_hash", "cpus"))

    def in_namespace() -> None:
        devices[2] = {"ifindex": 1}
        by_hash[7] = 1

    namespace.run(in_namespace)
    assert devices[2].ifindex == 1
    assert dict(by_hash) == {7: 1}
    with pytest.raises(MapError, match="update of key 0 failed"):
        devices[0] = {"ifindex": 4_000_000}
    cpus[0] = {"qsize": 16}
    assert cpus[0].qsize == 16
    del cpus[0]


def test_sockets(obj: Object, namespace: Namespace) -> None:
    sockets, by_hash = obj.maps["sockets"], obj.maps["socket_hash"]
    with namespace.socket() as server, namespace.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        sockets[0] = client
        by_hash[(1, 2)] = client
        cookie = int.from_bytes(client.getsockopt(socket.SOL_SOCKET, 57, 8), "little")
        assert sockets[0] == cookie
        assert by_hash[(1, 2)] == cookie
        assert sockets[0] == client
        assert sockets[0] != server
        assert by_hash == {(1, 2): client}
        assert 1 not in sockets
        del sockets[0]
        assert 0 not in sockets
    with pytest.raises(ValueTypeError, match="a sockmap takes something with a file descriptor"):
        sockets[0] = "client"
    with Path("/dev/null").open() as file, pytest.raises(MapError, match="update of key 0 failed"):
        sockets[0] = file


def test_cgroups_by_number(obj: Object) -> None:
    cgroups = obj.maps["cgroups"]
    with Cgroup() as cgroup:
        cgroups[0] = cgroup
        cgroups[1] = cgroup.path
        del cgroups[0]
    with pytest.raises(MapError, match="'/nowhere' cannot be opened: No such file"):
        cgroups[0] = "/nowhere"


def test_a_mmapable_array_reads_as_any_other(obj: Object) -> None:
    memory = obj.maps["memory"]
    memory[699] = (1, 2)
    assert len(memory.snapshot()) == 700
    assert memory.sum() == (1, 2)


STORAGE = """
#define STORAGE(name, kind) struct { __uint(type, BPF_MAP_TYPE_##kind); \\
    __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, __u64); } \\
    name SEC(".maps")
STORAGE(tasks, TASK_STORAGE);
STORAGE(inodes, INODE_STORAGE);
STORAGE(cgroups, CGRP_STORAGE);
STORAGE(sockets, SK_STORAGE);
int only; __u64 seen;
SEC("tp_btf/sys_enter") int count(__u64 *ctx) {
    struct task_struct *task = bpf_get_current_task_btf();
    if (task->pid != only) return 0;
    __u64 *value = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (value) { *value += 1; seen += 1; }
    return 0;
}
"""


def test_storage_of_a_task(load: Load) -> None:
    obj = load(STORAGE, globals={"only": os.getpid()})
    tasks, me = obj.maps["tasks"], os.getpid()
    assert me not in tasks
    tasks[me] = 1000
    with obj.programs["count"].attach():
        os.getppid()
    seen = obj.globals["seen"]
    assert seen >= 1
    assert tasks[me] == 1000 + seen
    del tasks[me]
    with pytest.raises(KeyError):
        tasks[me]
    with pytest.raises(MapError, match="2147483647 cannot be opened: "):
        tasks[2**31 - 1]
    with pytest.raises(MapError, match="task_storage"):
        list(tasks)


def test_storage_of_files_cgroups_and_sockets(load: Load, tmp_path: Path) -> None:
    obj = load(STORAGE)
    inodes, cgroups, sockets = (obj.maps[name] for name in ("inodes", "cgroups", "sockets"))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    inodes[tmp_path] = 5
    assert inodes[str(tmp_path)] == 5
    with pytest.raises(MapError, match="cannot be opened: No such file"):
        inodes[tmp_path / "missing"]
    with Cgroup() as cgroup:
        cgroups[cgroup] = 6
        assert cgroups[cgroup] == cgroups[cgroup.path] == 6
    with socket.socket() as made:
        assert made not in sockets
        sockets[made] = 7
        assert sockets[made] == 7
        del sockets[made]
        assert made not in sockets
    del inodes[tmp_path]
    assert tmp_path not in inodes
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_what_a_kind_does_not_do_is_said(obj: Object) -> None:
    stacks, ring = obj.maps["stacks"], obj.maps["ring"]
    with pytest.raises(MapError, match=r"map 'stacks' \(stack_trace\): update of key 0 failed"):
        stacks[0] = bytes(128)
    with pytest.raises(MapError, match=r"map 'ring' is a ringbuf: read it by events\(\)"):
        list(ring)
    for refused in (lambda: ring[0], lambda: ring.update({0: 1}), lambda: ring.pop(0)):
        with pytest.raises(MapError, match=r"map 'ring' is a ringbuf: read it by events\(\)"):
            refused()
    with pytest.raises(MapError, match="'stacks' is a stack_trace and cannot be read as events"):
        stacks.events()
    with pytest.raises(MapError, match="'stacks' is a stack_trace and cannot be pushed to"):
        stacks.push(b"")


def test_a_user_ring_buffer_only_loads(load: Load) -> None:
    obj = load(
        "struct { __uint(type, BPF_MAP_TYPE_USER_RINGBUF); __uint(max_entries, 4096); } "
        'up SEC(".maps");'
    )
    assert obj.maps["up"].type == "user_ringbuf"
