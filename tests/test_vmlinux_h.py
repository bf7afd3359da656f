from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_bpf.cache import Cache
from pytest_bpf.compile import find_compiler
from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.btf import vmlinux_h


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("header") / "vmlinux.h"
    vmlinux_h.write(vmlinux_h.RUNNING, path)
    return path


def test_it_has_the_kernels_types(header: Path) -> None:
    text = header.read_text()
    assert text.startswith("#ifndef __VMLINUX_H__\n#define __VMLINUX_H__\n")
    assert text.endswith("#endif\n")
    for wanted in ("struct task_struct {", "struct sk_buff {", "typedef __u32 u32;", "XDP_DROP ="):
        assert wanted in text
    assert text.index("attribute push") < text.index("struct task_struct {")
    assert text.index("struct task_struct {") < text.rindex("attribute pop")


@pytest.mark.parametrize("standard", ["-std=gnu11", "-std=gnu17"])
@pytest.mark.parametrize("name", ["clang", "zig"])
def test_it_is_valid_c(header: Path, tmp_path: Path, name: str, standard: str) -> None:
    compiler = find_compiler(name, cache=Cache(tmp_path))
    source = tmp_path / "a.c"
    source.write_text(
        f'#include "{header}"\n#include "{header}"\n'
        "int tgid(struct task_struct *t) { return t->tgid; }\n"
    )
    options = (standard, "-Wall", "-O2", "-g", "-S", "-emit-llvm", "-o", "-", str(source))
    done = subprocess.run(
        [*compiler.command, *compiler.flags, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert not done.stderr
    assert "llvm.preserve.struct.access.index" in done.stdout or "llvm.bpf." in done.stdout


def open_files() -> set[str]:
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = open_files()
    vmlinux_h.write(vmlinux_h.RUNNING, tmp_path / "v.h")
    with pytest.raises(UnavailableError):
        vmlinux_h.write(tmp_path, tmp_path / "w.h")
    assert open_files() == before


def test_no_btf(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=rf"no BTF at {tmp_path}/none to make vmlinux.h of"):
        vmlinux_h.write(tmp_path / "none", tmp_path / "v.h")
    with pytest.raises(UnavailableError, match="No such file or directory"):
        vmlinux_h.identity(tmp_path / "none")
    assert not (tmp_path / "v.h").exists()


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_not_btf(tmp_path: Path, length: int) -> None:
    broken = tmp_path / "btf"
    with vmlinux_h.RUNNING.open("rb") as whole:
        broken.write_bytes(whole.read(length))
    with pytest.raises(
        UnavailableError, match=rf"libbpf .* cannot read {broken} as a kernel's BTF"
    ):
        vmlinux_h.write(broken, tmp_path / "v.h")
    assert not (tmp_path / "v.h").exists()


def test_a_full_disk() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        vmlinux_h.write(vmlinux_h.RUNNING, FullDisk("/dev/full"))


class FullDisk(type(Path())):  # type: ignore[misc]
    """``/dev/full``, which must not be deleted as a failed file is."""

    def unlink(self, missing_ok: bool = False) -> None:
        assert missing_ok


def test_identity(tmp_path: Path) -> None:
    running = vmlinux_h.identity(vmlinux_h.RUNNING)
    assert running == vmlinux_h.identity(vmlinux_h.RUNNING)
    copy = tmp_path / "btf"
    copy.write_bytes(b"one")
    one = vmlinux_h.identity(copy)
    copy.write_bytes(b"three")
    assert len({running, one, vmlinux_h.identity(copy)}) == 3
