"""Kernels that may fail, kernels of a registry, and what is said before anything runs."""

from __future__ import annotations

import platform
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import limits, lookup, modules, store
from pytest_bpf.kernels.kernel import Kernel
from tests.serving import layer, publish, serving
from tests.sessions import run_with_machines

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")

pytestmark = pytest.mark.xdist_group("machines")

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the image is of x86_64")

NO_KERNEL = struct.pack("<4s3B9xHHI", b"\x7fELF", 2, 1, 1, 2, 62, 1) + bytes(1000)
"""The head of a file that looks like a kernel to everybody but qemu, which ends at once."""

MIXED = "def test_fails():\n    assert [1] == [2]\ndef test_passes(): pass\n"


@pytest.fixture
def bare(tmp_path: Path) -> Kernel:
    """A kernel with nothing but a configuration."""
    (tmp_path / "config-5.10.0").write_text("".join(f"\n{name}=y" for name in limits.NEEDED))
    return Kernel("5.10.0", tmp_path / "vmlinuz-5.10.0", None, "x86_64")


@pytest.mark.unit
def test_what_an_old_kernel_lacks(bare: Kernel) -> None:
    limits.require_possible(bare)
    said = limits.of(bare)
    assert said[0].startswith("5.10.0 has no BTF: ")
    assert any("bpf_cflags = -mcpu=v2" in sentence for sentence in said)
    assert bare.config is not None
    bare.config.write_text("".join(f"\n{name}=m" for name in (*limits.NEEDED, *limits.WANTED)))
    assert all("since Linux " in sentence for sentence in limits.of(bare))
    assert limits.of(replace(bare, release="6.12.1", image=Path("/none/vmlinuz"))) == []


@pytest.mark.unit
def test_what_no_machine_can_be_made_of(bare: Kernel) -> None:
    assert bare.config is not None
    bare.config.write_text("\nCONFIG_VIRTIO_PCI=y\n# CONFIG_9P_FS is not set\n")
    with pytest.raises(BpfError, match=r"lacks the system call bpf\(\) \(CONFIG_BPF_SYSCALL\), 9p"):
        limits.require_possible(bare)
    with pytest.raises(BpfError, match=r"5\.4\.2 .* is too old: tests run on Linux 5\.10 and"):
        limits.require_possible(replace(bare, release="5.4.2"))


@x86_64
@pytest.mark.usefixtures("release")
def test_a_kernel_without_9p_is_refused_before_anything_runs(session: pytest.Pytester) -> None:
    """By what lies beside its image: as Debian's ``-cloud-`` kernels, whose 9p is left out."""
    session.makepyfile("def test_x(): pass")
    boot = session.mkdir("root") / "boot"
    boot.mkdir()
    (boot / "vmlinuz-6.6.9").write_bytes(NO_KERNEL + b"Linux version 6.6.9 (nobody@nowhere)\n")
    set_here = "".join(f"{name}=y\n" for name in limits.NEEDED if "9P" not in name)
    (boot / "config-6.6.9").write_text(f"\n{set_here}# CONFIG_9P_FS is not set\n")
    lacks = "the kernel 6.6.9 (*) lacks 9p over virtio (CONFIG_NET_9P_VIRTIO), the file system 9p *"
    result = run_with_machines(session, "--bpf-kernel", "host", "--bpf-kernel", "./root")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --bpf-kernel: {lacks}"])
    assert not result.outlines
    result = run_with_machines(session, "--bpf-kernel", "host", "--bpf-kernel-may-fail", "./root")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"bpf: not on ./root: {lacks}"])


def test_a_kernel_may_fail_or_be_missing(session: pytest.Pytester) -> None:
    session.makepyfile(MIXED)
    session.makeini("[pytest]\nbpf_kernels_may_fail = host 0.99\n")
    result = run_with_machines(session, "-p", "no:randomly", "-rx", "--junitxml=j.xml")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(xfailed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "bpf: pytest-bpf *, kernels host (may fail)",
            "bpf: not on 0.99: no kernel '0.99' in /boot or *",
            "*::test_fails * xfailed",
            "total * 1 passed, 1 xfailed",
            "not on 0.99: no kernel '0.99' in /boot or *",
            "XFAIL *test_fails[[]host[]] - may fail on host: assert [[]1] == [[]2]",
        ]
    )
    assert "may fail on host" in (session.path / "j.xml").read_text()


def test_a_kernel_of_the_command_line_stands_for_those_of_the_configuration(
    session: pytest.Pytester,
) -> None:
    session.makepyfile(MIXED)
    session.makeini("[pytest]\nbpf_kernels_may_fail = 0.99\n")
    result = run_with_machines(session, "-p", "no:randomly", "--bpf-kernel", "host")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("*0.99*")
    result = run_with_machines(session, "-p", "no:randomly", "--bpf-kernel", "0.99")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bpf-kernel: no kernel is to be had: no kernel '0.99'*"])


@pytest.fixture(scope="session")
def dead_kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of an image that never boots; it says that it is Linux 6.6.9."""
    image = tmp_path_factory.mktemp("dead") / "vmlinux"
    image.write_bytes(NO_KERNEL + b"Linux version 6.6.9 (nobody@nowhere)\n")
    return str(image)


@x86_64
@pytest.mark.usefixtures("release")
def test_a_session_goes_on_without_a_machine_that_may_fail(
    session: pytest.Pytester, dead_kernel: str
) -> None:
    """It is counted nowhere; an id with its kernel selects nothing on the others."""
    name = "test_a_session_goes_on_without_a_machine_that_may_fail.py"
    session.makepyfile("def test_x(): pass\ndef test_y(): pass\n")
    kernels = ("--bpf-kernel", "host", "--bpf-kernel-may-fail", dead_kernel)
    ids = (f"{name}::test_x[host]", f"{name}::test_y[6.6.9]", f"{name}::test_y[host]")
    result = run_with_machines(session, "-p", "no:randomly", "-n", "2", *kernels, *ids)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "created: 2/2 workers",
            "* host",
            "total * 2 passed",
            "not on 6.6.9: no machine with this kernel: the virtual machine ended by itself *",
        ]
    )


@x86_64
@pytest.mark.usefixtures("release")
def test_a_machine_that_may_not_fail(session: pytest.Pytester, dead_kernel: str) -> None:
    session.makepyfile("def test_x(): pass")
    result = run_with_machines(session, "--bpf-kernel", "host", "--bpf-kernel", dead_kernel)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: no machine with kernel 6.6.9: the virtual machine *"])


@pytest.fixture
def published(release: str) -> Iterator[str]:
    """An image with the distribution's kernel and what a machine is made of.

    As it is the same kernel, with the same times, one saved machine is used for both.
    """
    stock = lookup.find("debian")
    assert stock is not None
    assert stock.modules is not None
    assert stock.config is not None
    files: dict[str, bytes | str] = {
        f"boot/vmlinuz-{release}": stock.image.read_bytes(),
        f"boot/config-{release}": stock.config.read_bytes(),
    }
    known = modules.available(stock.modules)
    for name in modules.closure((*modules.REQUIRED, *modules.OPTIONAL), known):
        place = known[name].relative_to(stock.modules)
        files[f"lib/modules/{release}/{place}"] = known[name].read_bytes()
    with serving() as server:
        content = layer(files, "w", mtime=int(stock.image.stat().st_mtime))
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[stock.architecture]
        digest = publish(server, "kernels", "6.1", content, architecture=machine)
        reference = f"oci:{server.address}/kernels:6.1@{digest}"
        yield reference
        kernel = lookup.find(reference)
        assert kernel is not None
        store.remove(kernel.image.parent.parent)


@pytest.mark.usefixtures("release")
def test_a_session_on_a_kernel_of_a_registry(session: pytest.Pytester, published: str) -> None:
    session.makepyfile("import os\ndef test_there(): assert os.uname().release[0].isdigit()")
    result = run_with_machines(session, "--bpf-kernel", published)
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines(["pytest-bpf: downloading kernels:6.1, layer 1 of 1, *"])
