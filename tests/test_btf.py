"""Types read from BTF: an object's, and the running kernel's."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import LoadError, UnavailableError, UnknownNameError
from pytest_bpf.kernel.btf import Array, Btf, Enumeration, Int, Kind, Pointer, Struct, vmlinux
from pytest_bpf.kernel.btf.offsets import kernel_struct, member_offset
from pytest_bpf.kernel.sys import libbpf

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/btf/vmlinux").exists(), reason="no BTF of the kernel"
)


def test_types_of_the_kernel() -> None:
    task = vmlinux().find("struct task_struct")
    assert isinstance(task, Struct)
    members = {member.name: member for member in task.flat_members()}
    assert members["comm"].type in (
        Array(Int("char", 1), 16),
        Array(Int("char", 1, signed=True), 16),
    )
    assert members["pid"].type == Int("int", 4, signed=True)
    assert members["mm"].type == Pointer()
    header = vmlinux().find("struct iphdr")
    assert isinstance(header, Struct)
    assert [(m.name, m.bit_size) for m in header.members[:2]] == [("ihl", 4), ("version", 4)]
    assert header.size == 20


def test_types_by_any_of_their_names() -> None:
    for name, expected in (
        ("__u64", "unsigned"),
        ("unsigned int", "unsigned int"),
        ("unsigned char", "unsigned char"),
        ("int", "int"),
        ("enum bpf_map_type", "bpf_map_type"),
        ("pid_t", "int"),
        ("union bpf_attr", "bpf_attr"),
        ("task_struct", "task_struct"),
    ):
        assert getattr(vmlinux().find(name), "name").find(expected) >= 0  # noqa: B009
    kinds = vmlinux().find("enum bpf_map_type")
    assert isinstance(kinds, Enumeration)
    assert dict(kinds.members)["BPF_MAP_TYPE_RINGBUF"] == 27


def test_offsets_of_the_kernel() -> None:
    assert member_offset("iphdr", "daddr") == 16
    assert member_offset("bpf_array", "map") == 0  # and a member of that struct is none
    for call, words in (
        (lambda: kernel_struct("qqqqqqqq"), "this kernel's BTF has no struct qqqqqqqq"),
        (lambda: member_offset("iphdr", "adr"), "struct iphdr has no member adr on this kernel"),
    ):
        with pytest.raises(UnavailableError, match=words):
            call()


def test_names_that_are_not_there() -> None:
    for name, words in (
        ("struct task_strct", "there is no type 'struct task_strct' in the BTF; did you mean"),
        ("union qqqqqqqqqqqqqqqq", r"no type 'union q+' in the BTF, which has \d+ of that kind"),
        ("very strange thing", "there is no type 'very strange thing' in the BTF"),
        ("", "there is no type ''"),
    ):
        with pytest.raises(UnknownNameError, match=words) as caught:
            vmlinux().find(name)
        assert len(str(caught.value)) < 300


def test_every_type_of_the_kernel_can_be_read() -> None:
    count = libbpf.function("btf__type_cnt")(libbpf.call("btf__load_vmlinux_btf"))
    assert count > 10_000
    for type_id in range(1, count, 7):
        assert vmlinux().type(type_id).size >= 0


class Blob:
    """BTF put together by hand."""

    def __init__(self) -> None:
        self.types = b""
        self.names = b"\0"

    def add(self, name: str, kind: Kind, size: int, *words: int, vlen: int = 0) -> None:
        offset = len(self.names) if name else 0
        self.names += name.encode() + b"\0" if name else b""
        self.types += struct.pack("=III", offset, kind << 24 | vlen, size)
        self.types += struct.pack(f"={len(words)}I", *words)

    def parsed(self, path: Path) -> Btf:
        header = struct.pack(
            "=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.names)
        )
        path.write_bytes(header + self.types + self.names)
        return Btf(libbpf.call("btf__parse_raw", str(path).encode()))


def itself(blob: Blob) -> None:
    blob.add("loop", Kind.TYPEDEF, 1)


def inside_itself(blob: Blob) -> None:
    blob.add("loop", Kind.STRUCT, 8, 0, 2, 0, vlen=1)
    blob.add("again", Kind.TYPEDEF, 1)


def no_such_type(blob: Blob) -> None:
    blob.add("lost", Kind.TYPEDEF, 900)


def too_long(blob: Blob) -> None:
    blob.add("int", Kind.INT, 4, 32)
    blob.types += struct.pack("=III3I", 0, Kind.STRUCT << 24 | 1, 4, 1, 1, 8)


@pytest.mark.parametrize(
    ("make", "type_id", "words"),
    [
        (itself, 1, "type 1 contains itself"),
        (inside_itself, 1, "type 1 contains itself"),
        (no_such_type, 1, "it has no type 900"),
        (too_long, 2, "'int' reaches past the end of ''"),
    ],
)
def test_damaged_types(
    tmp_path: Path, make: Callable[[Blob], None], type_id: int, words: str
) -> None:
    blob = Blob()
    make(blob)
    btf = blob.parsed(tmp_path / "btf")
    with pytest.raises(LoadError, match=f"the BTF is damaged: {words}"):
        btf.type(type_id)
    with pytest.raises(LoadError, match="damaged"):
        btf.pointee(type_id) if make is itself else btf.type(type_id)


def test_names_in_another_encoding(tmp_path: Path) -> None:
    blob = Blob()
    blob.names += b"\xff\xfe\0"
    blob.types += struct.pack("=IIII", 1, Kind.INT << 24, 4, 32)
    assert blob.parsed(tmp_path / "btf").type(1) == Int("\ufffd\ufffd", 4)
