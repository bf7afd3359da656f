"""What a machine is made of, without starting one."""

from __future__ import annotations

import io
import lzma
import os
import platform
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernels import debian, image, lookup, modules
from pytest_bpf.kernels.kernel import Kernel
from pytest_bpf.vm import liveness, parameters, python, qemu
from pytest_bpf.vm.command import Inline, inline
from pytest_bpf.vm.cpio import Archive
from pytest_bpf.vm.machine import QemuProcess

X86 = Kernel("6.1.0-9-amd64", Path("/k/vmlinuz"), None, "x86_64")
ARM = Kernel("6.1.0-9-arm64", Path("/k/Image"), None, "aarch64")


def entries(archive: bytes) -> dict[str, tuple[int, int, bytes]]:
    """Read an archive back: name to mode, time and content."""
    found: dict[str, tuple[int, int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        start = at + (110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        assert name not in found
        found[name] = (fields[1], fields[5], archive[start : start + fields[6]])
        at = start + (fields[6] + 3) // 4 * 4


def test_an_archive_keeps_paths_links_modes_and_times(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/script").write_text("#!x\n")
    (tmp_path / "real/script").chmod(0o751)
    os.utime(tmp_path / "real/script", (1, 1_600_000_000))
    (tmp_path / "way").symlink_to("real")
    (tmp_path / "name").symlink_to(tmp_path / "way/script")
    output = io.BytesIO()
    archive = Archive(output)
    archive.host_path(str(tmp_path / "name"))
    archive.host_path(str(tmp_path / "way/script"))
    archive.host_path(str(tmp_path / "absent"))
    archive.content("/a/b/odd", b"12345")
    archive.node("/dev/null", 1, 3)
    archive.close()
    found = entries(output.getvalue())
    here = str(tmp_path).lstrip("/")
    mode, mtime, content = found[f"{here}/real/script"]
    assert (stat.S_IMODE(mode), mtime, content) == (0o751, 1_600_000_000, b"#!x\n")
    assert found[f"{here}/way"][2] == b"real"
    assert found[f"{here}/name"][2] == os.fsencode(tmp_path / "way/script")
    assert stat.S_ISLNK(found[f"{here}/way"][0])
    assert stat.S_ISDIR(found["a/b"][0])
    assert found["a/b/odd"][2] == b"12345"
    assert stat.S_ISCHR(found["dev/null"][0])
    assert f"{here}/absent" not in found
    names = list(found)
    assert names.index("a") < names.index("a/b") < names.index("a/b/odd")


def module(path: Path, depends: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
    path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)


def test_modules_may_come_in_packages_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ubuntu's names, from an apt-cache that knows them; Debian's has none."""
    names = "linux-modules-6.8.0-9-generic linux-modules-extra-6.8.0-9-generic linux-modules-6.9"
    (tmp_path / "apt-cache").write_text(f"#!/bin/sh\nprintf '%s\\n' {names}\n")
    (tmp_path / "apt-cache").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = debian._module_packages("linux-image-unsigned-6.8.0-9-generic")
    assert found == ["linux-modules-6.8.0-9-generic", "linux-modules-extra-6.8.0-9-generic"]
    assert debian._module_packages("linux-image-6.1.0-56-amd64") == []


def test_a_build_tree_names_object_files(tmp_path: Path) -> None:
    module(tmp_path / "fs/9p/9p.ko", "")
    (tmp_path / "fs/9p/9p.o").touch()
    (tmp_path / "modules.order").write_text("fs/9p/9p.o\n")
    assert modules.available(tmp_path) == {"9p": tmp_path / "fs/9p/9p.ko"}


def test_the_configuration_lies_beside_the_image_or_in_the_tree(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    packed = Kernel("6.1.9", tmp_path / "boot/vmlinuz-6.1.9", None, "x86_64")
    assert packed.config is None
    (tmp_path / "boot/config-6.1.9").touch()
    assert packed.config == tmp_path / "boot/config-6.1.9"
    (tmp_path / ".config").touch()
    built = Kernel("6.13.0", tmp_path / "arch/x86/boot/bzImage", tmp_path, "x86_64")
    assert built.config == tmp_path / ".config"


def test_a_kernel_watches_no_longer_than_it_can_count() -> None:
    told = parameters.parameters
    watch = {"watchdog_thresh": "20", "softlockup_panic": "1"}
    assert watch.items() <= told(60, 2).items()
    assert "watchdog_thresh" not in told(60, 1)
    assert "watchdog_thresh" not in told(200, 2)
    assert told(200, 2)["hung_task_timeout_secs"] == "200"


def test_a_machine_is_told_what_it_was_not_told_before() -> None:
    assert parameters.changes(parameters.PATIENCE, 2) == {}
    assert parameters.changes(parameters.PATIENCE, 1, everything=True) == {"printk": "8"}
    never = parameters.changes(0, 2)
    assert {name for name, value in never.items() if value == "0"} == {
        *("unknown_nmi_panic", "hung_task_panic", "softlockup_panic"),
        "hung_task_check_interval_secs",
    }
    long = parameters.changes(200, 1)
    assert long == {"hung_task_timeout_secs": "200", "hung_task_check_interval_secs": "50"}


def test_a_full_memory_is_told_from_other_kills() -> None:
    console = "[ 9.1] Out of memory: Killed process 82 (python) total-vm:1kB"
    sentence = "the machine's memory of 512 MiB is full: Out of memory: Killed process 82 (python)"
    assert liveness.kill_reason(-9, console, 512) == sentence
    assert liveness.kill_reason(-15, console, 512) is None
    assert liveness.kill_reason(-9, "", 512) is None


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    module(tmp_path / "kernel/top-one.ko", "middle,base")
    module(tmp_path / "kernel/middle.ko.xz", "base")
    module(tmp_path / "kernel/base.ko", "")
    available = modules.available(tmp_path)
    assert set(available) == {"top_one", "middle", "base"}
    loaded = modules.closure(["top_one", "built_in"], available)
    assert list(loaded) == ["base", "middle", "top_one"]
    assert loaded["middle"].startswith(b"\x7fELF")


def test_a_kernel_without_9p_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("virtio_pci", "9p", "overlay"):
        module(tmp_path / f"kernel/{name}.ko", "")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/char/virtio_console.ko\n")
    kernel = Kernel("6.1", tmp_path / "vmlinuz", tmp_path, "x86_64")
    with pytest.raises(BpfError, match=r"kernel 6\.1 .* lacks 9pnet_virtio: neither built in"):
        lookup.require_modules(kernel)
    module(tmp_path / "kernel/9pnet_virtio.ko", "")
    lookup.require_modules(kernel)


def bzimage(release: str, payload: bytes) -> bytes:
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    text = f"{release} (builder@host) #1\0".encode()
    struct.pack_into("<HH", head, 0x206, 0x020F, 0)
    struct.pack_into("<H", head, 0x20E, 0x300 - 0x200)
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    head[0x300 : 0x300 + len(text)] = text
    return bytes(head) + payload + b"\0\0\0\1"


def elf(machine: int) -> bytes:
    return b"\x7fELF" + bytes(14) + struct.pack("<H", machine) + b"Xen\0Linux version 5.9.1 (x)"


def test_an_image_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bzimage("6.9.7-test", lzma.compress(elf(62))))
    assert image.identify(path) == image.Image("x86_64", "6.9.7-test")
    assert image.extract(path) == elf(62)
    path.write_bytes(elf(183))
    assert image.identify(path) == image.Image("aarch64", "5.9.1")
    assert image.extract(path) is None


def test_an_image_whose_payload_is_broken_boots_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bzimage("6.9.7-test", lzma.compress(elf(62))[:40] + b"?" * 40))
    assert image.extract(path) is None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the image is for another machine")
def test_the_wrong_images_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(BpfError, match="is not a kernel image"):
        lookup.find(str(path))
    path.write_bytes(elf(183))
    with pytest.raises(BpfError, match="is for aarch64, this machine is x86_64"):
        lookup.find(str(path))
    with pytest.raises(BpfError, match=r"no kernel image .*: no such file or folder"):
        lookup.find(str(tmp_path / "absent"))
    with pytest.raises(BpfError, match="neither a built one"):
        lookup.find(str(tmp_path))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the image is for another machine")
def test_kernels_are_found_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(tmp_path / "cache"))
    for release in ("6.1.9", "6.1.10", "6.12.1"):
        root = tmp_path / "cache/kernels" / release
        (root / "lib/modules" / release).mkdir(parents=True)
        (root / "boot").mkdir()
        (root / "boot" / f"vmlinuz-{release}").write_bytes(bzimage(release, b""))
    (tmp_path / "cache/kernels/6.1.9/boot/vmlinuz-6.1.99.txt").write_text("no kernel")
    newest = lookup.find("6.1")
    assert newest is not None
    assert newest.release == "6.1.10"
    assert newest.modules == tmp_path / "cache/kernels/6.1.10/lib/modules/6.1.10"
    with pytest.raises(BpfError, match=r"no kernel '5\.99' .*6\.1\.10"):
        lookup.find("5.99")
    layout = lookup.find(str(tmp_path / "cache/kernels/6.12.1"))
    assert layout is not None
    assert layout.modules == tmp_path / "cache/kernels/6.12.1/lib/modules/6.12.1"
    tree = tmp_path / "linux"
    (tree / "arch/x86/boot").mkdir(parents=True)
    (tree / "arch/x86/boot/bzImage").write_bytes(bzimage("6.13.0-rc1", b""))
    (tree / "modules.order").write_text("")
    for found in (newest, layout):  # as a machine's command is told
        assert lookup.find(str(found.image)) == found
    built = lookup.find(str(tree))
    assert built == Kernel("6.13.0-rc1", tree / "arch/x86/boot/bzImage", tree, "x86_64")
    assert lookup.find(str(tree / "arch/x86/boot/bzImage")) == built
    (tree / "arch/x86/lib/modules/6.13.0-rc1").mkdir(parents=True)  # as of another build
    assert lookup.find(str(tree / "arch/x86/boot/bzImage")) == built
    (tree / "modules.order").rename(tree / ".config")
    assert lookup.find(str(tree / "arch/x86/boot/bzImage")) == lookup.find(str(tree)) == built
    assert lookup.find("host") is None


def test_the_command_line_follows_the_architecture() -> None:
    wiring = qemu.Descriptors({"qmp": 5, "control": 6, "in": 7, "out": 8, "err": 9}, 10)
    for kernel, machine, console in ((X86, "q35", "ttyS0"), (ARM, "virt", "ttyAMA0")):
        made = qemu.Machine(kernel)
        hardware = qemu.hardware(made, "tcg")
        assert hardware[hardware.index("-machine") + 1].split(",")[0] == machine
        assert f"console={console}" in qemu.command_line(made, "/py", "/init").split()
        assert "-icount" not in hardware
    exact = qemu.hardware(qemu.Machine(X86, exact=True), "tcg")
    assert exact[exact.index("-icount") + 1] == "shift=0,sleep=on"
    made = qemu.Machine(X86)
    behind = qemu.backends(made, wiring, "/m,1", shared=False, writable=[Path("/w,x")])
    assert "memory-backend-file,id=memory,size=1024M,mem-path=/m,,1,share=off" in behind
    writable = [word for word in behind if "readonly=off" in word]
    assert writable == [
        "local,id=writable0,path=/w,,x,readonly=off,security_model=none,multidevs=remap"
    ]
    assert qemu.Machine(X86, exact=True).accelerators() == ("tcg",)


def test_an_exact_machine_has_one_cpu() -> None:
    with pytest.raises(BpfError, match="has one CPU, not 2"):
        qemu.Machine(X86, exact=True, cpus=2)


def test_no_qemu_is_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnavailableError, match=r"there is no qemu-system-\w+; install"):
        qemu.program()


@pytest.mark.skipif(
    not os.access(sys.executable, os.X_OK), reason="the folder of this Python is not this user's"
)
def test_plain_python_commands_run_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    us = sys.executable
    assert inline([us, "-u", "-c", "x", "1"]) == Inline("-c", "x", ["1"], unbuffered=True)
    assert inline([us, "-m", "pytest", "-q"]) == Inline("-m", "pytest", ["-q"], unbuffered=False)
    assert inline([us, "a.py"]) == Inline("", "a.py", [], unbuffered=False)
    for other in (["ls"], [us], [us, "-X", "dev", "a.py"], [us, "-c"], ["/nowhere/python", "a"]):
        assert inline(other) is None
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    assert inline([us, "a.py"]) is None


def test_a_changed_file_makes_a_saved_python_stale(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("1")
    closure = python.Closure((str(tmp_path / "one.py"),), ("one", "two"))
    path = [str(tmp_path)]
    stamp = python.stamp(closure, path)
    assert python.is_current(stamp, path)
    (tmp_path / "other.txt").touch()
    assert python.is_current(stamp, path)
    (tmp_path / "two.py").touch()
    assert not python.is_current(stamp, path)
    (tmp_path / "two.py").unlink()
    assert python.is_current(stamp, path)
    os.utime(tmp_path / "one.py", (1, time.time() - 9))
    assert not python.is_current(stamp, path)


def test_a_panic_is_shown_from_its_first_line_on() -> None:
    long = "seq 1 40; echo Kernel panic - not syncing: x; seq 41 80"
    with QemuProcess(lambda _: ["sh", "-c", long]) as process:
        process.wait(120)
        panic = str(process.error("ended by itself")).splitlines()[1:]
    assert panic == ["  | Kernel panic - not syncing: x", *(f"  | {n}" for n in range(41, 81))]
    with QemuProcess(lambda _: ["seq", "80"]) as process:
        process.wait(120)
        assert str(process.error("ended by itself")).splitlines()[1] == "  | 56"


FINALIZER = """
import os, signal, sys
from pytest_bpf.vm import __main__ as vm

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        len("here it comes")

def work(_):
    Last()
    while True:
        signal.pause()

vm._in_a_machine = work
sys.argv[1:] = ["--kernel", "host", "--", "true"]
sys.exit(vm.main())
"""


def test_a_signal_in_a_finalizer_is_not_lost() -> None:
    code = (sys.executable, "-c", FINALIZER)
    done = subprocess.run(code, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
