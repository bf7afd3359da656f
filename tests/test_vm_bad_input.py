"""What can go wrong with machines: each time a sentence, and nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_bpf.cache import open_cache
from pytest_bpf.kernels import lookup, modules

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_bpf.kernels.kernel import Kernel

TIMEOUT = 400

pytestmark = pytest.mark.xdist_group("machines")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


def vm(kernel: Path | str, *words: str) -> list[str]:
    return [sys.executable, "-m", "pytest_bpf.vm", "--kernel", str(kernel), *words]


def run(
    command: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def cached_in(folder: Path) -> dict[str, str]:
    return {"PYTEST_BPF_CACHE": str(folder)}


def assert_one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    *_, sentence = done.stderr.strip().splitlines()
    assert sentence.startswith("pytest-bpf: "), done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in sentence
    assert done.returncode == 125


@pytest.fixture(scope="module")
def build_tree(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's kernel laid out as a build leaves it: modules in place, listed as object files."""
    assert kernel.modules is not None
    tree = tmp_path_factory.mktemp("linux")
    image = tree / lookup.BUILT[kernel.architecture]
    image.parent.mkdir(parents=True)
    shutil.copy(kernel.image, image)
    listed = []
    for module in modules.available(kernel.modules).values():
        place = module.relative_to(kernel.modules / "kernel")
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).symlink_to(module)
        (tree / place).with_suffix(".o").touch()
        listed.append(str(place.with_suffix(".o")))
    (tree / "modules.order").write_text("\n".join(listed))
    shutil.copy(kernel.modules / "modules.builtin", tree)
    assert kernel.config is not None
    shutil.copy(kernel.config, tree / ".config")
    return tree


def test_an_interruption_while_a_machine_is_saved_leaves_nothing(
    kernel: Kernel, tmp_path: Path
) -> None:
    (tmp_path / "test_x.py").write_text("def test_x(): pass\n")
    command = [sys.executable, "-m", "pytest", "--bpf-kernel", str(kernel.image)]
    environment = os.environ | cached_in(tmp_path / "cache")
    with subprocess.Popen(
        [*command, "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stderr
        said = ""
        while "booting" not in said:
            character = process.stderr.read(1)
            assert character, said
            said += character
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert not [child for child in children if child.is_running()]
    assert not list((tmp_path / "cache" / "tmp").iterdir())


def test_a_build_tree_runs(kernel: Kernel, build_tree: Path) -> None:
    show = 'uname -r; grep CONFIG_KPROBES= "/boot/config-$(uname -r)"; ls -d "/sys/module/9pnet"'
    done = run(vm(build_tree, "--", "sh", "-c", show))
    assert done.stdout == f"{kernel.release}\nCONFIG_KPROBES=y\n/sys/module/9pnet\n", done.stderr


def test_a_tree_without_a_module_is_refused_by_its_name(
    kernel: Kernel, build_tree: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "linux"
    shutil.copytree(build_tree, tree, symlinks=True)
    (tree / "net/9p/9pnet_virtio.ko").unlink()
    done = run(vm(tree, "--", "true"), cached_in(tmp_path / "cache"))
    assert_one_sentence(done, f"kernel {kernel.release} ", "lacks 9pnet_virtio: neither built in")


def test_a_kernel_that_came_alone_says_what_it_lacks(kernel: Kernel, tmp_path: Path) -> None:
    """Nothing on this side tells what is built in: the kernel boots, and its Python looks."""
    image = tmp_path / "vmlinuz"
    shutil.copy(kernel.image, image)
    done = run(vm(image, "--", "true"), cached_in(tmp_path / "cache"))
    assert_one_sentence(done, str(image), "lacks virtio_pci (CONFIG_VIRTIO_PCI)", "a module, as")
    assert not any((tmp_path / "cache/tmp").iterdir())


def on_a_disk(size: str, folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command whose cache is on a disk of its own, in a mount namespace."""
    folder.mkdir()
    script = 'mount -t tmpfs -o mode=700,size="$1" none "$2" && shift 2 && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", script, "sh", size, str(folder)]
    return run([*wrapper, *command], cached_in(folder))


@needs_root
def test_a_disk_that_is_too_small(kernel: Kernel, tmp_path: Path) -> None:
    root = kernel.image.parent.parent
    done = on_a_disk("64m", tmp_path / "disk", vm(root, "--save"))
    assert_one_sentence(done, "saving a machine needs 700 MiB", "has 64 MiB left; make room there")


ROOMY = """
import sys
from pytest_bpf.vm import __main__, saving
saving.ROOM = 100
sys.exit(__main__.main())
"""


@needs_root
@pytest.mark.parametrize("size", ["100m", "260m"], ids=["the archive", "the memory"])
def test_a_disk_that_gets_full(kernel: Kernel, tmp_path: Path, size: str) -> None:
    """Where less was asked for than it takes: Python meets the end of the disk, or qemu does."""
    _, _, _, *words = vm(kernel.image.parent.parent, "--save")
    done = on_a_disk(size, tmp_path / "disk", [sys.executable, "-c", ROOMY, *words])
    assert_one_sentence(done, "saving a machine needs 100 MiB", "make room there")


def test_ctrl_c_before_boot_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    own = {**os.environ, **cached_in(tmp_path), "TMPDIR": str(temporary)}
    command = vm(kernel.image.parent.parent, "--save")
    with subprocess.Popen(command, env=own, stderr=subprocess.PIPE) as saving:
        while not any(tmp_path.glob("tmp/*/*/test_warm.py")):
            assert saving.poll() is None, "it ended without looking at what Python imports"
        saving.send_signal(signal.SIGINT)
        assert saving.wait(TIMEOUT) == 128 + signal.SIGINT
    assert not any((tmp_path / "tmp").iterdir())
    assert not any(temporary.iterdir())


def test_ctrl_c_during_boot_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    command = vm(kernel.image.parent.parent, "--save")
    with subprocess.Popen(
        command, env={**os.environ, **cached_in(tmp_path)}, stderr=subprocess.PIPE
    ) as saving:
        assert saving.stderr
        said = b""
        while b"booting, " not in said:
            more = os.read(saving.stderr.fileno(), 4096)
            assert more, "it ended before it booted"
            said += more
        while not (machines := psutil.Process(saving.pid).children()):
            assert saving.poll() is None, "it ended without a machine"
        saving.send_signal(signal.SIGINT)
        assert saving.wait(TIMEOUT) == 128 + signal.SIGINT
    assert psutil.wait_procs(machines, timeout=TIMEOUT)[1] == []
    assert not any((tmp_path / "tmp").iterdir())


@pytest.mark.usefixtures("kernel")
def test_a_full_memory_is_unread() -> None:
    greedy = "held = [bytearray(1 << 20) for _ in range(4096)]"
    done = run(vm("debian", "--", sys.executable, "-c", greedy))
    assert done.returncode == 128 + signal.SIGKILL
    assert "the machine's memory of 1024 MiB is full: Out of memory: Killed" in done.stderr


def test_without_qemu(kernel: Kernel, tmp_path: Path) -> None:
    done = run(vm(kernel.image.parent.parent, "--", "true"), {"PATH": str(tmp_path)})
    assert_one_sentence(done, "there is no qemu-system-", "install")
    options = ("-p", "no:cacheprovider", "--bpf-kernel", str(kernel.image.parent.parent))
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    session = run(command, {"PATH": str(tmp_path), **cached_in(open_cache().folder)})
    assert session.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: no machine with kernel {kernel.release}: there is no qemu" in session.stderr
