"""Maps that are larger than a memory cgroup of 300 MB: a sentence, with the check and without it.

Without the check it is the kernel that refuses them (ENOMEM). Nothing here is larger than 1 GB, and
no number of entries overflows in the kernel. (Per-CPU memory is not charged to such a cgroup by
every kernel: there the check is all that there is.)
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_bpf.kernel.sys.memory import memory_cgroup

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading needs root")

LIMIT = 300 << 20

SCRIPT = '''
import sys
from pathlib import Path
from pytest_bpf import BpfError
from pytest_bpf.compile import compile_source
from pytest_bpf.kernel.sys.memory import enter
from pytest_bpf.loader import Loader
from pytest_bpf.objects.loading import load
from pytest_bpf.objects.maps import template

SIZES = {
    "array": (64 << 20, "u32", "u64"),
    "hash": (8 << 20, "u32", "u64"),
    "lru_hash": (8 << 20, "u32", "u64"),
    "queue": (64 << 20, None, "u64"),
    "bloom_filter": (1 << 30, None, "u64"),
    "ringbuf": (512 << 20, None, None),
}
TEXT = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 64 << 20);
         __type(key, __u32); __type(value, __u64); } large SEC(".maps");
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
"""
group, way = Path(sys.argv[1]), sys.argv[2]
if way == "unchecked":
    load.check_memory = template.check_memory = lambda *_: None
path = compile_source(TEXT, name="large").object
with Loader() as loader:
    enter(group)

    def attempt(name, make, *args, **kwargs):
        try:
            make(*args, **kwargs)
            print(name, "loaded")
        except BpfError as error:
            print(name, error)

    attempt("object", loader.load, path)
    for kind, (entries, key, value) in SIZES.items():
        attempt(kind, loader.create_map, kind, key=key, value=value, max_entries=entries)
'''


@pytest.mark.parametrize("way", ["checked", "unchecked"])
def test_maps_larger_than_a_memory_cgroup(way: str) -> None:
    with memory_cgroup(LIMIT) as group:
        if group is None:
            pytest.skip("no memory cgroup can be made here")
        command = [sys.executable, "-c", SCRIPT, str(group), way]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert len(lines) == 7, done.stdout
    for line in lines:
        if way == "checked":
            assert "its maps would take" in line, line
            assert "0.3 GB of memory are available" in line or "0.2 GB of memory" in line, line
        else:
            assert "ENOMEM" in line or "memory" in line, line
