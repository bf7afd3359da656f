"""Programs and maps that others loaded: found, read, measured, and left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import LoadError, MapError, UnknownNameError, measure
from pytest_bpf.kernel.sys import ids
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.kernel.sys.descriptors import open_objects
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf import Object
    from tests.conftest import Load

NAME = f"find_me_{os.getpid()}_and_more"
"""Longer than what the kernel keeps of it, and nobody else's."""

TEXT = f"""
struct pair {{ __u32 a; __u32 b; }};
struct {{
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, struct pair);
}} pairs_{os.getpid()} SEC(".maps");
struct {{ __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); }} ring SEC(".maps");
const struct pair *unused __attribute__((unused));
SEC("xdp") int {NAME}(struct xdp_md *ctx)
{{
    struct pair value = {{1, 2}};
    __u32 key = 7;
    bpf_map_update_elem(&pairs_{os.getpid()}, &key, &value, BPF_ANY);
    bpf_ringbuf_output(&ring, &value, sizeof(value), 0);
    return XDP_PASS;
}}
SEC("xdp") int other_{os.getpid()}(struct xdp_md *ctx) {{ return XDP_DROP; }}
"""


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(TEXT)


@pytest.fixture
def bpf() -> Iterator[Loader]:
    """Find with a loader of its own, which leaves nothing open."""
    before = open_objects()
    with Loader() as loader:
        yield loader
    assert open_objects() == before


@pytest.fixture
def pins() -> Iterator[Path]:
    with PinDirectory() as made:
        yield made.path


def test_a_program_is_found_by_its_whole_name(obj: Object, bpf: Loader) -> None:
    program, theirs = bpf.find_program(NAME), obj.programs[NAME]
    assert (program.id, program.tag, program.name) == (theirs.id, theirs.tag, NAME)
    assert (program.type, program.section) == ("xdp", "xdp")
    assert program.fd != theirs.fd
    assert program.verified_insns == theirs.verified_insns > 0
    assert program.prog_size_jited == theirs.prog_size_jited


def test_a_program_is_found_by_id_tag_and_process(obj: Object, bpf: Loader) -> None:
    theirs = obj.programs[NAME]
    assert bpf.find_program(id=theirs.id).name == NAME
    assert bpf.find_program(tag=theirs.tag, pid=os.getpid()).id == theirs.id
    assert bpf.find_program(NAME, pid=os.getpid()).id == theirs.id
    with pytest.raises(UnknownNameError, match=f"no program called '{NAME}' held by process 1 "):
        bpf.find_program(NAME, pid=1)


@pytest.mark.usefixtures("obj")
def test_a_found_program_runs_and_is_measured(bpf: Loader) -> None:
    program = bpf.find_program(NAME)
    run = program.test_run(bytes(64), {"data_end": 64})
    assert run.retval == 2
    assert run.context.data_end == 64, "its context is typed by the kernel's BTF"
    cost = measure(program, lambda: program.test_run(bytes(64), repeat=20), batches=3)
    assert cost.per_run > 0


def test_a_found_program_stays_when_it_is_let_go(obj: Object) -> None:
    with Loader() as loader:
        program = loader.find_program(NAME)
        number = program.id
    assert ids.exists("prog", number)
    with pytest.raises(LoadError, match="is gone"):
        program.test_run(bytes(64))
    assert obj.programs[NAME].test_run(bytes(64)).retval == 2


def test_a_found_map_is_typed_and_written(obj: Object, bpf: Loader) -> None:
    obj.programs[NAME].test_run(bytes(64))
    found = bpf.find_map(f"pairs_{os.getpid()}")
    assert found[7].b == 2
    found[8] = {"a": 3, "b": 4}
    assert obj.maps[found.name][8] == (3, 4)


def test_a_found_ring_has_the_types_of_the_programs_that_use_it(obj: Object, bpf: Loader) -> None:
    found = bpf.find_map("ring", id=obj.maps["ring"].id)
    obj.programs[NAME].test_run(bytes(64))
    events = found.events().read(count=1)
    assert events[-1].b == 2


def test_what_is_pinned_is_found_by_its_path(obj: Object, bpf: Loader, pins: Path) -> None:
    obj.programs[NAME].pin(pins / "program")
    obj.maps["ring"].pin(pins / "ring")
    assert bpf.find_program(pinned=pins / "program").id == obj.programs[NAME].id
    assert bpf.find_map(pinned=pins / "ring").id == obj.maps["ring"].id
    with pytest.raises(MapError, match=r"no map pinned to .*program, but something else"):
        bpf.find_map(pinned=pins / "program")
    with pytest.raises(LoadError, match=r"no program pinned to .*nothing: ENOENT: No such file"):
        bpf.find_program(pinned=pins / "nothing")
    with pytest.raises(UnknownNameError, match="pinned= says which one by itself"):
        bpf.find_program(NAME, pinned=pins / "program")


@pytest.mark.usefixtures("obj")
def test_none_is_said_with_the_near_matches(bpf: Loader) -> None:
    near = NAME.replace("find", "fnid")
    with pytest.raises(UnknownNameError, match=f"no program called '{near}'.*mean '{NAME}'"):
        bpf.find_program(near)
    gone = max(ids.every("map")) + 100_000
    with pytest.raises(UnknownNameError, match=f"there is no map with id {gone} in the kernel$"):
        bpf.find_map(id=gone)


def test_several_are_said_with_their_ids(obj: Object, bpf: Loader, load: Load) -> None:
    again = load(TEXT)
    both = sorted((obj.programs[NAME].id, again.programs[NAME].id))
    with pytest.raises(UnknownNameError) as caught:
        bpf.find_program(NAME)
    assert str(caught.value) == (
        f"there are 2 programs called '{NAME}': id {both[0]} ({NAME}, xdp), "
        f"id {both[1]} ({NAME}, xdp); say which one by id="
    )


def test_nothing_said_is_refused(bpf: Loader) -> None:
    with pytest.raises(UnknownNameError, match="say which program: its name="):
        bpf.find_program()


@pytest.mark.usefixtures("obj")
def test_a_found_program_is_no_libbpf_program(bpf: Loader) -> None:
    with pytest.raises(LoadError, match="was not loaded from an object of this process"):
        bpf.find_program(NAME).verifier_log()


def test_what_is_attached_of_a_found_program_is_detached_with_the_loader(load: Load) -> None:
    text = 'SEC("raw_tp") int quiet(void *ctx) { return 0; }'
    theirs = load(text).programs["quiet"]
    with Loader() as loader:
        link = loader.find_program(id=theirs.id).attach("sys_enter")
        assert link.attached
        number = link.id
    assert not link.attached
    assert number not in set(ids.every("link"))


HOLDER = """
import sys, time
from pytest_bpf.loader import Loader
with Loader() as bpf:
    obj = bpf.load(sys.argv[1])
    obj.attach()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_another_process_holds(bpf: Loader, tmp_path: Path) -> None:
    source = tmp_path / "held.bpf.c"
    source.write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
        "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);\n"
        '  __type(value, __u64); } calls SEC(".maps");\n'
        'SEC("tracepoint/syscalls/sys_enter_getppid") int count_calls(void *ctx)\n'
        "{ __u32 k = 0; __u64 *n = bpf_map_lookup_elem(&calls, &k);\n"
        "  if (n) __sync_fetch_and_add(n, 1); return 0; }\n"
        'char LICENSE[] SEC("license") = "GPL";\n'
    )
    command = [sys.executable, "-c", HOLDER, str(source)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"ready\n"
        program = bpf.find_program(pid=other.pid)
        number = program.id
        calls = bpf.find_map("calls", pid=other.pid)
        assert program.name == "count_calls"
        before = calls[0]
        for _ in range(10):
            os.getppid()
        assert calls[0] >= before + 10
        other.communicate(timeout=60)
    bpf.close()
    until = time.monotonic() + 120
    while ids.exists("prog", number):
        assert time.monotonic() < until, "the program outlives its process and our descriptor"
