"""Objects that are none: each is one sentence that says what and where, and leaves nothing."""

from __future__ import annotations

import gc
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import BpfError, LoadError
from pytest_bpf.kernel.sys.descriptors import open_objects
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
enum colour { RED, GREEN };
struct value { __u32 bits : 3; enum colour colour; char name[4]; union { __u32 x; __u8 y[4]; }; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32);
         __type(value, struct value); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096);
         __type(value, struct value); } ring SEC(".maps");
const volatile int limit = 3; int counter = 5; __u64 total;
static __attribute__((noinline)) int part(int n) { return n + counter; }
SEC("xdp") int one(struct xdp_md *ctx) {
    __u32 key = ctx->rx_queue_index; struct value *value = bpf_map_lookup_elem(&table, &key);
    if (value) total += value->bits;
    return part(key) > limit ? XDP_PASS : XDP_DROP; }
SEC("raw_tp") int two(void *ctx) {
    struct task_struct *task = (void *)bpf_get_current_task();
    struct value *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);
    if (event) { event->bits = BPF_CORE_READ(task, pid); bpf_ringbuf_submit(event, 0); }
    return 0; }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def compiled() -> bytes:
    with Loader() as loader:
        return loader.compile(SOURCE).object.read_bytes()


def refusal(path: Path | str, **options: Any) -> str:
    """Return the sentence by which a load is refused; nothing is left of it."""
    before = open_objects(), len(list(Path("/proc/self/fd").iterdir()))
    with Loader() as loader, pytest.raises(LoadError) as caught:
        loader.load(path, **options)
    assert (open_objects(), len(list(Path("/proc/self/fd").iterdir()))) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is empty (0 bytes); compile it again"),
    "text": (lambda _: b"hello", "is no ELF object (it starts with b'hell'); pass a .bpf.c source"),
    "random": (lambda _: random.Random(1).randbytes(5000), "is no ELF object"),
    "header": (lambda c: c[:40], "is truncated: 40 bytes, an ELF header has 64"),
    "cut": (lambda c: c[:1000], "is truncated: 1000 bytes, its section table ends at"),
    "32 bits": (lambda c: changed(c, 4, b"\1"), "word size or byte order of another machine"),
    "endian": (lambda c: changed(c, 5, b"\2"), "word size or byte order of another machine"),
    "machine": (lambda c: changed(c, 18, b"\3"), "is an object for x86, not for BPF"),
    "native": (lambda _: Path(sys.executable).read_bytes(), "compile with -target bpf"),
    "no sections": (lambda c: changed(c, 60, b"\0\0"), "libbpf cannot open it"),
    "only magic": (lambda _: b"\x7fELF" + bytes(100), "of another machine"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_object(tmp_path: Path, compiled: bytes, case: str) -> None:
    content, words = FILES[case]
    path = tmp_path / "bad.bpf.o"
    path.write_bytes(content(compiled))
    said = refusal(path)
    assert words in said
    assert said.startswith(str(path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.bpf.o").endswith("none.bpf.o: cannot be read: No such file or "
                                                     "directory")  # fmt: skip
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    with Loader(tmp_path) as loader, pytest.raises(BpfError, match=r"none\.bpf\.c"):
        loader.load("none.bpf.c")


def test_an_object_cut_off_anywhere(tmp_path: Path, compiled: bytes) -> None:
    path = tmp_path / "cut.bpf.o"
    for size in random.Random(2).sample(range(len(compiled)), 40):
        path.write_bytes(compiled[:size])
        refusal(path)


def stripped(content: bytes, tmp_path: Path, *options: str) -> Path:
    objcopy = shutil.which("llvm-objcopy")
    if objcopy is None:
        pytest.skip("no llvm-objcopy")
    path = tmp_path / "stripped.bpf.o"
    path.write_bytes(content)
    subprocess.run([objcopy, *options, path], check=True)
    return path


def test_an_object_without_btf_has_no_maps_and_says_so(tmp_path: Path, compiled: bytes) -> None:
    path = stripped(compiled, tmp_path, "--remove-section=.BTF", "--remove-section=.BTF.ext")
    assert refusal(path).endswith(
        "libbpf cannot open it: BTF is required, but is missing or corrupted."
    )


def test_what_works_without_btf_works(tmp_path: Path) -> None:
    source = (
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\nint counter;\n'
        'SEC("xdp") int one(struct xdp_md *ctx) { return counter++; }\n'
    )
    with Loader() as loader:
        content = loader.compile(source).object.read_bytes()
        path = stripped(content, tmp_path, "--remove-section=.BTF", "--remove-section=.BTF.ext")
        obj = loader.load(path)
        assert obj.programs["one"].test_run(bytes(64)).retval == 0
        assert list(obj.globals) == []
        assert obj.programs["one"].context_type is None
    assert "has no BTF to find global variables in; compile it with -g" in refusal(
        path, globals={"counter": 1}
    )


def test_a_stripped_object_loads_and_rejects_without_a_line(
    tmp_path: Path, compiled: bytes
) -> None:
    path = stripped(compiled, tmp_path, "--strip-debug")
    with Loader() as loader:
        assert set(loader.load(path).programs) == {"one", "two"}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bytes changed, bits flipped, or a piece overwritten."""
    made, how = bytearray(content), chance.randrange(3)
    for _ in range(chance.randrange(1, 8)):
        at = chance.randrange(len(made))
        if how == 0:
            made[at] = chance.randrange(256)
        elif how == 1:
            made[at] ^= 1 << chance.randrange(8)
        else:
            made[at : at + 16] = chance.randbytes(len(made[at : at + 16]))
    return bytes(made)


def look_at_everything(path: Path) -> None:
    with Loader() as loader:
        obj = loader.load(path)
        repr((obj.maps, obj.programs, obj.globals))
        for of in obj.maps.values():
            of.events().read() if of.type == "ringbuf" else of.snapshot()


def test_three_hundred_damaged_objects(tmp_path: Path, compiled: bytes) -> None:
    """Each loads and can be looked at, or is refused by an error of ours; nothing remains."""
    content = stripped(compiled, tmp_path, "--strip-debug").read_bytes()
    path, chance = tmp_path / "damaged.bpf.o", random.Random(3)
    gc.collect()
    before, outcomes = (open_objects(), len(list(Path("/proc/self/fd").iterdir()))), {"loaded": 0}
    for _ in range(300):
        path.write_bytes(mutated(content, chance))
        try:
            look_at_everything(path)
            outcomes["loaded"] += 1
        except BpfError as error:
            outcomes[type(error).__name__] = outcomes.get(type(error).__name__, 0) + 1
    gc.collect()
    assert (open_objects(), len(list(Path("/proc/self/fd").iterdir()))) == before
    assert min(outcomes["loaded"], outcomes["LoadError"]) > 30
