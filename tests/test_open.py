"""What an object holds is seen and set before anything of it is in the kernel."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import BpfError, LoadError, UnknownNameError
from pytest_bpf.kinds.attach_types import AttachType
from pytest_bpf.kinds.flags import MapFlags, ProgramFlags
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
const volatile int limits[4] = {1, 2, 3, 4};
int start = 7;
struct pair { __u32 low, high; };
struct pair pairs[2] SEC(".data.pairs");
extern int CONFIG_HZ __kconfig __weak;
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32);
               __type(value, __u64); };
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
         __array(values, struct inner); } tenants SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16); __type(key, __u32);
         __type(value, __u64); __uint(map_flags, BPF_F_NO_PREALLOC);
         __uint(pinning, LIBBPF_PIN_BY_NAME); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(max_entries, 16); __uint(key_size, 4); }
    stacks SEC(".maps");

__attribute__((btf_decl_tag("fast"))) SEC("xdp")
int count(struct xdp_md *ctx) {
    __u32 key = 1;
    pairs[0].low += start + CONFIG_HZ;
    return bpf_map_lookup_elem(&table, &key) || bpf_map_lookup_elem(&tenants, &key)
        ? XDP_PASS : limits[ctx->rx_queue_index & 3];
}
SEC("cgroup/connect4") int on_connect(struct bpf_sock_addr *ctx) { return 1; }
SEC("?lsm.s/file_open") int on_open(void *ctx) { return 0; }
SEC("mine") int own(struct xdp_md *ctx) { return XDP_PASS; }
"""


def test_programs_show_what_their_sections_say() -> None:
    with Loader() as bpf, bpf.open(SOURCE) as obj:
        programs = obj.programs
        assert {name: (p.section, p.type) for name, p in programs.items()} == {
            "count": ("xdp", "xdp"),
            "on_connect": ("cgroup/connect4", "cgroup_sock_addr"),
            "on_open": ("lsm.s/file_open", "lsm"),
            "own": ("mine", "unspec"),
        }
        assert programs["on_connect"].expected_attach_type is AttachType.CGROUP_INET4_CONNECT
        assert programs["on_open"].flags == ProgramFlags.SLEEPABLE
        assert programs["on_open"].attach_target == "file_open"
        assert [p.autoload for p in programs.values()] == [True, True, False, True]
        assert programs["count"].insn_cnt > 10
        assert any("limits[ctx" in line.text for line in programs["count"].source_lines)
        assert not any("limits[ctx" in line.text for line in programs["own"].source_lines)


def test_maps_show_what_was_declared() -> None:
    with Loader() as bpf, bpf.open(SOURCE) as obj:
        table, tenants = obj.maps["table"], obj.maps["tenants"]
        assert (table.type, table.key_size, table.value_size, table.max_entries) == (
            *("hash", 4, 8),
            16,
        )
        assert table.flags == MapFlags.NO_PREALLOC
        assert table.pin_path == Path("/sys/fs/bpf/table")
        assert table.inner is None
        assert tenants.inner is not None
        assert (tenants.inner.type, tenants.inner.value_size) == ("hash", 8)
        with pytest.raises(LoadError, match=r"inner map; set maps\['tenants'\]\.inner"):
            tenants.inner.max_entries = 9


def test_all_that_can_be_set_is_what_is_loaded() -> None:
    with Loader() as bpf, bpf.open(SOURCE) as obj:
        obj.globals["limits"] = [2, 2, 2, 2]
        obj.globals["start"] = 9
        obj.globals["pairs"] = [{"low": 1, "high": 2}, {"low": 3, "high": 4}]
        assert obj.globals["pairs"][1].high == 4
        obj.programs["own"].type = "xdp.frags"
        obj.programs["on_connect"].autoload = False
        obj.maps["table"].max_entries = 32
        obj.maps["table"].flags = 0
        obj.maps["stacks"].value_size = 8 * 5
        loaded = obj.load()
        assert set(loaded.programs) == {"count", "own"}
        assert loaded.programs["own"].type == "xdp"
        assert (loaded.maps["table"].max_entries, loaded.maps["table"].flags) == (32, 0)
        assert loaded.maps["stacks"].value_size == 40
        assert loaded.programs["count"].test_run(bytes(64)).retval == 2
        assert loaded.globals["pairs"][0].low >= 1 + 9


def test_an_open_object_is_loaded_as_often_as_it_is_asked_for() -> None:
    with Loader() as bpf, bpf.open(SOURCE) as obj:
        obj.programs["own"].autoload = obj.programs["on_connect"].autoload = False
        obj.maps["stacks"].autocreate = False
        obj.maps["table"].pin_path = None
        first = obj.load()
        obj.maps["table"].max_entries = 64
        second = obj.load()
        assert (first.maps["table"].max_entries, second.maps["table"].max_entries) == (16, 64)
        first.maps["table"][1] = 5
        assert 1 not in second.maps["table"]


def test_a_failed_load_loses_nothing_that_was_set() -> None:
    with Loader() as bpf, bpf.open(SOURCE) as obj:
        obj.globals["start"] = 11
        obj.maps["stacks"].autocreate = False
        with pytest.raises(LoadError, match=r"types={'own': \.\.\.}"):
            obj.load()
        obj.programs["own"].type = "xdp"
        assert obj.globals["start"] == 11
        assert obj.load().globals["start"] == 11


@pytest.mark.parametrize("value", ["xdp", "socket_filter", "cgroup/connect4"])
def test_a_section_of_ones_own_needs_its_type(value: str) -> None:
    text = SOURCE.replace('SEC("mine") int own(struct xdp_md *ctx) { return XDP_PASS; }', "") + (
        'SEC("mine/of/ours") int own(void *ctx) { return 1; }'
    )
    with Loader() as bpf:
        obj = bpf.load(text, types={"own": value}, programs="own", value_size={"stacks": 8})
        kind = "cgroup_sock_addr" if "/" in value else value
        assert obj.programs["own"].type == kind


def test_a_type_that_the_section_contradicts_is_refused() -> None:
    with Loader() as bpf, bpf.open(SOURCE) as obj:
        with pytest.raises(LoadError, match=r"cannot be of type 'sched_cls': .*makes it 'xdp'"):
            obj.programs["count"].type = "sched_cls"
        with pytest.raises(UnknownNameError, match="did you mean 'xdp'"):
            obj.programs["own"].type = "xpd"
        with pytest.raises(UnknownNameError, match="did you mean 'xdp_devmap'"):
            obj.programs["own"].expected_attach_type = "xdp_devmp"


@pytest.mark.parametrize(
    ("part", "name", "setting", "value", "message"),
    [
        ("maps", "table", "max_entries", 0, r"max_entries=0; it takes 1 to 4294967295"),
        ("maps", "table", "max_entries", 2**32, r"it takes 1 to 4294967295"),
        ("maps", "table", "max_entries", "9", r"max_entries='9'"),
        ("maps", "table", "key_size", -1, r"key_size=-1"),
        ("programs", "count", "flags", -1, r"flags=-1"),
        ("programs", "count", "log_level", 99, r"log_level=99; it takes 0 to 7"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_set(
    part: str, name: str, setting: str, value: object, message: str
) -> None:
    with Loader() as bpf, bpf.open(SOURCE) as obj:
        with pytest.raises(LoadError, match=message) as refusal:
            setattr(getattr(obj, part)[name], setting, value)
        assert repr(name) in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"types": "xdp"}, "pass a dict, as in types={'name'"),
        ({"types": {"own": 3}}, "program 'own' .mine.: type=3: pass a program type"),
        ({"types": {"owm": "xdp"}}, "no program 'owm'; did you mean 'own'"),
        ({"types": {"count": "tc"}}, "cannot be of type 'sched_cls': its section makes it 'xdp'"),
        ({"value_size": {"stacks": 7}}, "values of whole addresses of 8 bytes, not 7"),
        ({"value_size": {"stacks": 8 << 20}}, "8 times the sysctl kernel.perf_event_max_stack"),
        ({"value_size": {"stack": 8}}, "no map 'stack'; did you mean 'stacks'"),
        ({"value_size": {"stacks": 8.0}}, "value_size=8.0; it takes 0 to"),
        ({"kconfig": 3}, "kconfig=3: pass a dict"),
        ({"kconfig": "/boot/config"}, "lines as CONFIG_HZ=250"),
        ({"kconfig": {"CONFIG_HX": 3}}, "'CONFIG_HX'; did you mean 'CONFIG_HZ'"),
        ({"kconfig": {"CONFIG_HZ": 2.5}}, "CONFIG_HZ=2.5: pass a bool, an int"),
        ({"kconfig": {"CONFIG_HZ": "many"}}, "'CONFIG_HZ': value '\"many\"' implies char array"),
        ({"btf_path": "/tmp"}, "btf_path='/tmp': is no file"),
        ({"btf_path": "/etc/passwd"}, "has no BTF .it starts with"),
        ({"btf_path": 3}, "pass the path of a file with BTF"),
        ({"skip": 3}, "skip=3: pass names or patterns in a list"),
        ({"programs": 3}, "programs=3: pass names or patterns in a list"),
        ({"log_level": "2"}, "log_level='2': pass a number, or a dict by program"),
        ({"flags": {"count": 1 << 30}}, "it may lack the flags 0x40000000"),
        ({"maps": {"table": 3}}, "map 'table': 3 cannot take its place: pass a Map"),
        ({"pins": "table"}, "pass a dict, as in pins="),
        ({"pins": {"table": 3}}, "pin_path=3: pass a path, or None"),
        (
            {"pins": {"table": "/tmp/table"}},
            "cannot be pinned at /tmp/table: it must be a new name",
        ),
        ({"cflags": "-O2"}, "cflags='-O2': pass a list, as in cflags=.'-O2'"),
        ({"include_dirs": "include"}, "include_dirs='include': pass a list"),
        ({"defines": ["A"]}, "pass a dict, as in defines="),
        ({"compiler": 3}, "compiler=3: pass a name or path"),
    ],
    ids=str,
)
def test_bad_input_is_refused_with_a_sentence(settings: dict[str, Any], message: str) -> None:
    whole = {"programs": "count", "value_size": {"stacks": 8}, **settings}
    with Loader() as bpf, pytest.raises(BpfError, match=message):
        bpf.load(SOURCE, **whole)


def test_programs_are_chosen_by_patterns() -> None:
    with Loader() as bpf:
        stacks = {"stacks": 40}
        obj = bpf.load(SOURCE, programs=["on_c*", "count"], value_size=stacks, name="a")
        assert set(obj.programs) == {"count", "on_connect"}
        obj = bpf.load(SOURCE, skip=["on_*", "own"], value_size=stacks, name="b")
        assert set(obj.programs) == {"count"}
        with pytest.raises(UnknownNameError, match=r"no program 'onn_\*'"):
            bpf.load(SOURCE, programs="onn_*")


def test_a_configuration_of_ones_own_stands_for_the_kernels() -> None:
    with Loader() as bpf:
        obj = bpf.load(
            SOURCE, programs="count", value_size={"stacks": 8}, kconfig={"CONFIG_HZ": 1234}
        )
        assert obj.globals["CONFIG_HZ"] == 1234
        with bpf.open(SOURCE) as another, pytest.raises(LoadError, match="kconfig="):
            another.globals["CONFIG_HZ"] = 3


def test_types_to_relocate_by_can_be_of_another_kernel(tmp_path: Path) -> None:
    with Loader() as bpf:
        with bpf.open(SOURCE, btf_path="/sys/kernel/btf/vmlinux") as obj:
            obj.maps["stacks"].value_size = 8
            obj.programs["own"].autoload = False
            assert obj.load().programs["count"].test_run(bytes(64)).retval == 1
        with pytest.raises(LoadError, match="there is no such file"):
            bpf.open(SOURCE, btf_path=tmp_path / "none")


def test_a_closed_one_says_so() -> None:
    with Loader() as bpf:
        obj = bpf.open(SOURCE)
    with pytest.raises(LoadError, match=r"is closed; open it again"):
        obj.load()


PINNED = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, __u64); __uint(pinning, LIBBPF_PIN_BY_NAME); } shared SEC(".maps");
SEC("syscall") int add(void *ctx) {
    __u32 key = 0;
    __u64 *value = bpf_map_lookup_elem(&shared, &key);
    if (value)
        *value += 1;
    return 0;
}
"""


def test_maps_pinned_by_name_are_shared_by_the_objects_of_a_loader_only() -> None:
    with Loader() as bpf:
        one, other = bpf.load(PINNED, name="one"), bpf.load(PINNED, name="other")
        one.programs["add"].test_run()
        assert other.maps["shared"][0] == 1
        assert bpf.find_map(pinned=bpf.pins / "shared")[0] == 1
        pins = bpf.pins
    assert not pins.exists()
    with Loader() as bpf:
        assert bpf.load(PINNED).maps["shared"][0] == 0


def test_a_pin_that_was_made_before_can_be_named() -> None:
    with Loader() as bpf:
        path = bpf.pins / "older"
        first = bpf.load(PINNED, name="one", pins={"shared": path})
        first.programs["add"].test_run()
        with Loader() as another:
            second = another.load(PINNED, name="other", pins={"shared": path})
            second.programs["add"].test_run()
        assert path.exists(), "who found a pin does not remove it"
        assert first.maps["shared"][0] == 2
        first.close()
        assert not path.exists(), "who made a pin removes it"


def test_a_folder_for_pins_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    with Loader() as bpf:
        with pytest.raises(LoadError, match=f"'shared' cannot be pinned at .* no folder {folder};"):
            bpf.load(PINNED, name="one", pins={"shared": folder / "shared"})
        assert not folder.exists()
        within = bpf.pins / "more" / "shared"
        bpf.load(PINNED, name="one", pins={"shared": within})
        assert within.exists()


@pytest.mark.parametrize(
    ("section", "near"),
    [
        ("cgroup/conect4", "did you mean 'cgroup/connect4'"),
        ("tc/ingres", "did you mean 'tc/ingress'"),
        ("xpd", "did you mean 'xdp'"),
        ("tp_btf", 'as in SEC\\("tp_btf/sched_switch"\\), or give it by attach_to='),
    ],
)
def test_a_section_that_is_misspelt(section: str, near: str) -> None:
    source = f"""
    #include "vmlinux.h"
    #include <bpf/bpf_helpers.h>
    SEC("{section}") int p(void *ctx) {{ return 0; }}
    """
    with Loader() as bpf, pytest.raises(LoadError, match=near):
        bpf.load(source, name="misspelt")


def test_a_pinned_map_of_other_sizes_is_named() -> None:
    with Loader() as bpf:
        bpf.load(PINNED, name="one")
        with pytest.raises(LoadError, match=r"pinned by name, .* pins={'shared': None}"):
            bpf.load(PINNED.replace("1); __type", "2); __type"), name="other")


NEWER = {
    "netkit/primary": "sched_cls",
    "netfilter": "netfilter",
    "tcx/egress": "sched_cls",
    "cgroup/connect_unix": "cgroup_sock_addr",
    "uprobe.multi//proc/self/exe:main": "kprobe",
    "kprobe.session/vfs_read": "kprobe",
    "sk_skb/verdict": "sk_skb",
    "usdt.s": "kprobe",
}


@pytest.mark.parametrize("section", NEWER)
def test_newer_sections_have_the_types_that_newer_libbpfs_give_them(section: str) -> None:
    text = f'#define SEC(x) __attribute__((section(x), used))\nSEC("{section}") int p(void *c) {{'
    with Loader() as bpf, bpf.open(text + " return 1; }\n") as obj:
        assert obj.programs["p"].type == NEWER[section]


def test_sizes_that_are_missing_are_named() -> None:
    with Loader() as bpf, pytest.raises(LoadError, match=r"say value_size={'stacks': \.\.\.}"):
        bpf.load(SOURCE, programs="count")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_it_needs_no_privilege(public_folder: Path) -> None:
    path = public_folder / "open.bpf.o"
    with Loader() as bpf:
        path.write_bytes(bpf.compile(SOURCE).object.read_bytes())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            with Loader() as bpf, bpf.open(path) as obj:
                obj.programs["own"].type = "xdp"
                code = 0 if obj.maps["table"].max_entries == 16 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def sized(kind: str, key: str = "__uint(key_size, 4);") -> str:
    return f"""
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct {{ __uint(type, BPF_MAP_TYPE_{kind.upper()}); __uint(max_entries, 16); {key}
          __uint(value_size, 512); }} wide SEC(".maps");
SEC("syscall") int run(void *ctx) {{ return 0; }}
"""


@pytest.mark.parametrize("kind", ["hash", "array", "percpu_hash", "lru_hash", "percpu_array"])
def test_maps_that_no_memory_is_left_for_are_refused_before_they_are_made(kind: str) -> None:
    with Loader() as bpf:
        assert bpf.load(sized(kind)).maps["wide"].max_entries == 16
        with pytest.raises(LoadError, match=r"would take [\d.]+ GB and [\d.]+ GB .*'wide'"):
            bpf.load(sized(kind), max_entries={"wide": 2**31 - 1})


def test_a_per_cpu_array_that_kernels_crash_on_is_never_made() -> None:
    with Loader() as bpf, bpf.open(sized("percpu_array")) as obj:
        obj.maps["wide"].value_size = 1
        obj.maps["wide"].max_entries = 2**31
        with pytest.raises(LoadError, match="kernels crash on per-CPU arrays of more than"):
            obj.load()


def test_an_object_from_elsewhere_is_refused_alike(tmp_path: Path) -> None:
    with Loader() as bpf:
        path = tmp_path / "wide.bpf.o"
        path.write_bytes(bpf.compile(sized("hash").replace("16", "2147483647")).object.read_bytes())
        with pytest.raises(LoadError, match="GB of memory"):
            bpf.load(path)
        assert bpf.load(path, max_entries={"wide": 8}).maps["wide"].max_entries == 8


ITERATOR = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u64); } table SEC(".maps");
SEC("iter/bpf_map_elem") int walk(struct bpf_iter__bpf_map_elem *ctx) {
    __u32 *key = ctx->key;
    if (key)
        BPF_SEQ_PRINTF(ctx->meta->seq, "%d\\n", *key);
    return 0;
}
SEC("raw_tp") int hook(void *ctx) { return 0; }
SEC("tp_btf") int typed(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""


def test_attach_to_says_where_programs_attach_when_they_are_attached() -> None:
    source = ITERATOR.replace(
        "<bpf/bpf_helpers.h>", "<bpf/bpf_helpers.h>\n#include <bpf/bpf_tracing.h>"
    )
    with Loader() as bpf, bpf.open(source) as obj:
        first = bpf.load(source, name="first", programs="hook", attach_to={"hook": "sys_enter"})
        first.maps["table"][7] = 1
        obj.programs["walk"].attach_target = first.maps["table"]
        obj.programs["typed"].attach_target = "sys_enter"
        obj.programs["hook"].autoload = False
        loaded = obj.load()
        assert loaded.programs["walk"].attach().read() == "7\n"
        loaded.attach()
        first.attach()
        assert set(first.links) == {"hook"}
        assert "typed" in loaded.links


def test_a_function_that_is_not_in_the_kernel_has_near_names() -> None:
    with Loader() as bpf, pytest.raises(LoadError, match=r"did you mean .*sys_enter"):
        bpf.load(
            ITERATOR.replace(
                "<bpf/bpf_helpers.h>", "<bpf/bpf_helpers.h>\n#include <bpf/bpf_tracing.h>"
            ),
            programs="typed",
            attach_to={"typed": "sys_entr"},
        )
