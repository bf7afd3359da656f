"""Kernels from ``.deb`` files, addresses and images of a registry, and what goes wrong there."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import cache
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernels import lookup, oci, store
from pytest_bpf.kernels.download import Remote, downloaded
from tests.serving import TOKEN, layer, publish, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf.kernels.kernel import Kernel
    from tests.serving import Server

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels are for x86_64"),
]

needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb")


def bzimage(release: str) -> bytes:
    """The head of a kernel's image: what tells its release."""
    head = bytearray(1 << 16)
    head[0x202:0x206] = b"HdrS"
    head[0x206:0x208] = (0x0207).to_bytes(2, "little")
    head[0x20E:0x210] = (0x3000).to_bytes(2, "little")
    text = f"{release} (nobody@nowhere)".encode()
    head[0x3200 : 0x3200 + len(text)] = text
    return bytes(head) + os.urandom(1 << 20)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> Iterator[Path]:
    undo = cache.choose(tmp_path / "cache")
    yield tmp_path / "cache"
    undo()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def package(folder: Path, files: dict[str, bytes], name: str = "linux-image-6.6.9_amd64") -> Path:
    """Make a package that only `dpkg-deb -x` takes for one."""
    for path, content in files.items():
        (folder / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / path).write_bytes(content)
    control = folder / "tree/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: linux-image-6.6.9\nVersion: 1\nArchitecture: amd64\n"
        "Maintainer: nobody <n@example.org>\nDescription: a kernel\n"
    )
    made = folder / f"{name}.deb"
    command = ["dpkg-deb", "-Znone", "--root-owner-group", "-b", "tree", made.name]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return made


def contents(kernel: Kernel) -> set[str]:
    """The files of an unpacked kernel."""
    assert kernel.modules is not None
    root = kernel.image.parent.parent
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@needs_dpkg
def test_a_package_by_its_path(tmp_path: Path) -> None:
    """Also where its modules are below /usr, as since Debian 13; it is unpacked once."""
    files = {"boot/vmlinuz-6.6.9": bzimage("6.6.9"), "usr/lib/modules/6.6.9/modules.order": b""}
    made = package(tmp_path, files)
    kernel = lookup.find(str(made))
    assert kernel is not None
    assert kernel.release == "6.6.9"
    assert kernel.modules == kernel.image.parent.parent / "usr/lib/modules/6.6.9"
    shutil.rmtree(tmp_path / "tree")
    assert lookup.find(str(made)) == kernel
    assert store.origin_of(kernel.image.parent.parent) == str(made)
    assert lookup.find("6.6") == kernel


@needs_dpkg
def test_a_package_by_its_address_from_a_mirror_that_breaks_off(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    made = package(tmp_path, {"boot/vmlinuz-6.6.9": bzimage("6.6.9")})
    content = made.read_bytes()
    server.files["/k.deb"], server.limit = content, 400_000
    url = f"{server.url('/k.deb')}#sha256={hashlib.sha256(content).hexdigest()}"
    kernel = lookup.find(url)
    assert kernel is not None
    assert kernel.release == "6.6.9"
    ranges = [wanted for _, wanted in server.asked]
    assert ranges == ["", "bytes=400000-", "bytes=800000-"]
    said = capfd.readouterr().err
    assert "downloading k.deb, 1 MB, once: 20 % 40 % 60 % 80 % 100 %\n" in said
    assert lookup.find(url) == kernel
    assert len(server.asked) == 3


def test_what_one_run_has_got_the_next_one_uses(server: Server) -> None:
    content = os.urandom(300_000)
    sha256 = hashlib.sha256(content).hexdigest()
    remote = Remote(server.url("/f"), "f", sha256)
    with pytest.raises(UnavailableError, match="/f: the server says 404"), downloaded(remote):
        pass
    server.files["/f"], server.limit = content, 100_000
    server.breaks = 1
    server.gone_after = 1
    with pytest.raises(UnavailableError, match="/f: the server says 404"), downloaded(remote):
        pass
    server.gone_after = 0
    server.asked.clear()
    with downloaded(remote) as path:
        assert path.read_bytes() == content
    assert not path.exists()
    assert [wanted for _, wanted in server.asked] == ["bytes=100000-"]


def test_what_is_whole_comes_once(server: Server) -> None:
    """What it was for failed, as on a full disk."""
    content = os.urandom(1000)
    server.files["/f"] = content
    remote = Remote(server.url("/f"), "f", hashlib.sha256(content).hexdigest())
    with pytest.raises(ZeroDivisionError), downloaded(remote) as path:
        raise ZeroDivisionError
    with downloaded(remote) as path:
        assert path.read_bytes() == content
    assert len(server.asked) == 1


def test_a_server_that_always_breaks_off(server: Server) -> None:
    server.files["/f"], server.limit = bytes(1000), 0
    words = r"it broke off, 4 times in a row, after 0 bytes; the next run goes on there"
    with pytest.raises(UnavailableError, match=words), downloaded(Remote(server.url("/f"), "f")):
        pass


def test_what_changed_meanwhile_is_not_put_together(server: Server) -> None:
    server.files["/f"], server.limit, server.breaks = b"a" * 1000, 500, 2
    remote = Remote(server.url("/f"), "f")
    with downloaded(remote) as path:
        assert path.read_bytes() == b"a" * 1000
    server.limit, server.breaks = 0, 4
    with pytest.raises(UnavailableError), downloaded(remote):
        pass
    server.files["/f"], server.limit = b"b" * 800, None
    with downloaded(remote) as path:
        assert path.read_bytes() == b"b" * 800


def test_a_digest_that_differs(server: Server, own_cache: Path) -> None:
    server.files["/k.deb"] = b"other"
    url = f"{server.url('/k.deb')}#sha256={'0' * 64}"
    with pytest.raises(
        BpfError, match=r"/k\.deb: its sha256 is d9298a10d1.*, not 0+; it is not used"
    ):
        lookup.find(url)
    assert not list((own_cache / "downloads").iterdir())
    assert not list((own_cache / "tmp").iterdir())


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("http://example.org/k.deb", "nobody vouches for what comes by http; write https, or"),
        ("https://example.org/k.rpm", "downloaded as .deb files, and this is none"),
        ("https://example.org/k.deb#md5=1", "behind the # stands sha256= and 64"),
        ("https:///k.deb", "is no address"),
        ("http://[::1/k.deb", "is no address"),
        ("/nowhere/k.deb", "there is no package /nowhere/k.deb: no such file"),
        ("oci:ubuntu:24.04", "names no image; write oci:REGISTRY/IMAGE:TAG"),
        ("oci:localhost:0", "names no image"),
        ("oci:", "names no image"),
        ("oci:ghcr.io/x:y@sha256:12", "names no image"),
    ],
)
def test_names_that_are_none(choice: str, words: str) -> None:
    with pytest.raises(BpfError, match=re.escape(words)):
        lookup.find(choice)


@needs_dpkg
def test_packages_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "broken.deb").write_bytes(b"not at all")
    with pytest.raises(UnavailableError, match=r"broken\.deb root failed: .*is it a whole package"):
        lookup.find(str(tmp_path / "broken.deb"))
    made = package(tmp_path, {"usr/share/doc/x": b""})
    with pytest.raises(BpfError, match=r"\.deb holds no kernel: neither boot/vmlinuz"):
        lookup.find(str(made))


def test_an_image_of_a_registry(server: Server) -> None:
    """Later layers remove and replace; links and paths that lead out are left out."""
    server.token = TOKEN
    lower = layer(
        {
            "boot/": b"",
            "boot/vmlinuz-6.6.9": bzimage("6.6.9"),
            "boot/config-6.6.9": b"CONFIG_BPF=y\n",
            "lib/modules/6.6.9/old.ko": b"",
            "lib/modules/6.6.9/kernel/gone.ko": b"",
            "lib/modules/6.6.9/kept.ko": b"1",
            "etc/passwd": b"",
        }
    )
    upper = layer(
        {
            "./lib/modules/6.6.9/.wh.old.ko": b"",
            "lib/modules/6.6.9/kernel/.wh..wh..opq": b"",
            "lib/modules/6.6.9/kept.ko": b"2",
            "lib/modules/6.6.9/build": "/usr/src",
            "boot/../../../../outside": b"",
            "lib/modules/6.6.9/up": "../../../..",
            "lib/modules/6.6.9/same.ko": "kept.ko",
        },
        mode="w",
    )
    publish(server, "owner/kernels", "6.6", lower, upper)
    choice = f"oci:{server.address}/owner/kernels:6.6"
    kernel = lookup.find(choice)
    assert kernel is not None
    assert kernel.release == "6.6.9"
    assert contents(kernel) == {
        *("boot/vmlinuz-6.6.9", "boot/config-6.6.9", "origin"),
        *("lib/modules/6.6.9/kept.ko", "lib/modules/6.6.9/same.ko"),
    }
    assert (kernel.image.parent.parent / "lib/modules/6.6.9/kept.ko").read_bytes() == b"2"
    before = len(server.asked)
    assert lookup.find(choice) == kernel
    assert len(server.asked) == before, "a tag is asked for once a day"


def test_a_tag_that_moves_and_a_registry_that_is_gone(server: Server, own_cache: Path) -> None:
    first = publish(server, "k", "new", layer({"boot/vmlinuz": bzimage("6.6.1")}))
    choice = f"oci:{server.address}/k:new"
    assert str(lookup.find(choice)) == "6.6.1"
    publish(server, "k", "new", layer({"boot/vmlinuz": bzimage("6.6.2")}))
    assert str(lookup.find(choice)) == "6.6.1"
    (noted,) = (own_cache / "oci").iterdir()
    os.utime(noted, (0, 0))
    assert str(lookup.find(choice)) == "6.6.2"
    assert str(lookup.find(f"oci:{server.address}/k@{first}")) == "6.6.1"
    os.utime(noted, (0, 0))
    server.files.clear()
    server.token = "nobody's"
    assert str(lookup.find(choice)) == "6.6.2"
    with pytest.raises(UnavailableError, match=r"the registry says 401 .* docker create"):
        lookup.find(f"oci:{server.address}/k:other")


def test_images_that_are_none(server: Server) -> None:
    publish(server, "k", "6.6", layer({"etc/passwd": b""}))
    publish(server, "k", "arm", b"", architecture="arm64")
    publish(server, "k", "broken", b"no archive")
    publish(server, "k", "empty")
    server.files["/v2/k/manifests/page"] = b"<html>"
    server.files[f"/v2/k/manifests/sha256:{hashlib.sha256(b'<html>').hexdigest()}"] = b"<html>"
    for tag, words in {
        "6.6": "k:6.6 holds no kernel: neither boot/vmlinuz",
        "arm": "has no image for amd64, which this machine is; it has arm64",
        "broken": "layer 1 of 1 is no archive",
        "empty": "is an image without layers",
        "page": "its manifest is none of an image: b'<html>'",
        "6.7": r"there is no image .*k:6.7; did you mean '6.6'\?; there are 6.6, arm, broken",
    }.items():
        with pytest.raises(BpfError, match=words):
            lookup.find(f"oci:{server.address}/k:{tag}")
    assert not list((cache.open_cache().folder / "tmp").iterdir())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(UnavailableError, match=r"the registry does not answer: .*refused"):
        lookup.find(f"oci:127.0.0.1:{port}/k:6.6")


def test_a_layer_with_another_digest(server: Server) -> None:
    publish(server, "k", "6.6", layer({"boot/vmlinuz": bzimage("6.6.9")}))
    (blob,) = (path for path in server.files if "/blobs/" in path)
    server.files[blob] = b"other"
    with pytest.raises(BpfError, match=r"blobs/sha256:\w+: its sha256 is \w+, not \w+; it is not"):
        lookup.find(f"oci:{server.address}/k:6.6")


def test_a_manifest_with_another_digest(server: Server) -> None:
    digest = publish(server, "k", "6.6", layer({"boot/vmlinuz": bzimage("6.6.9")}))
    server.files[f"/v2/k/manifests/{digest}"] = b"{}"
    with pytest.raises(BpfError, match="the registry gave a manifest with the digest"):
        lookup.find(f"oci:{server.address}/k@{digest}")


def test_two_that_want_it_at_once(server: Server, own_cache: Path) -> None:
    """It comes once."""
    publish(server, "k", "6.6", layer({"boot/vmlinuz": bzimage("6.6.9")}))
    server.gate.clear()
    text = "import sys; from pytest_bpf.kernels import lookup; print(lookup.find(sys.argv[1]))"
    command = [sys.executable, "-c", text, f"oci:{server.address}/k:6.6"]
    environment = os.environ | {"PYTEST_BPF_CACHE": str(own_cache)}
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(2)
    ]
    server.gate.set()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["6.6.9\n"] * 2
    assert sum("/blobs/" in path for path, _ in server.asked) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("size", ["1m", "18m"])
def test_a_disk_that_is_full(server: Server, tmp_path: Path, size: str) -> None:
    """Before the download, or when what was in it turns out to be larger."""
    files = {"boot/vmlinuz": bzimage("6.6.9"), "lib/modules/6.6.9/large": bytes(30 << 20)}
    publish(server, "k", "6.6", layer(files))
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o mode=700,size="$1" none "$2" && shift 2 && exec "$@"'
    text = """
import sys
from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import lookup
try:
    lookup.find(sys.argv[1])
except BpfError as error:
    print(error)
"""
    reference = f"oci:{server.address}/k:6.6"
    words = [sys.executable, "-c", text, reference]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", size, str(tmp_path / "disk"), *words],
        env=os.environ | {"PYTEST_BPF_CACHE": str(tmp_path / "disk")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "set PYTEST_BPF_CACHE to another folder" in done.stdout, done
    assert "MB" in done.stdout or "No space left on device" in done.stdout
    assert not done.stderr.count("Traceback")


def test_kernels_that_nobody_uses_go(server: Server, own_cache: Path) -> None:
    for number in (1, 2):
        publish(server, "k", f"6.{number}", layer({"boot/vmlinuz": bzimage(f"6.{number}.0")}))
    old = lookup.find(f"oci:{server.address}/k:6.1")
    assert old is not None
    os.utime(old.image.parent.parent, (0, 0))
    new = lookup.find(f"oci:{server.address}/k:6.2")
    assert new is not None
    assert list((own_cache / "kernels").iterdir()) == [new.image.parent.parent]


@needs_dpkg
@pytest.mark.parametrize("by", ["address", "path", "version"])
def test_a_kernel_is_in_use_however_it_is_asked_for(
    server: Server, own_cache: Path, tmp_path: Path, by: str
) -> None:
    """Also one whose image lies with its modules; and a package that was unpacked."""
    files = layer({"lib/modules/6.1.0/vmlinuz": bzimage("6.1.0")})
    publish(server, "k", "6.1", files)
    of_image = f"oci:{server.address}/k:6.1"
    made = package(tmp_path, {"boot/vmlinuz-6.6.9": bzimage("6.6.9")})
    for choice, release in {of_image: "6.1.0", str(made): "6.6.9"}.items():
        kernel = lookup.find(choice)
        assert kernel is not None
        assert kernel.release == release
        root = next(path for path in kernel.image.parents if path.parent.name == "kernels")
        os.utime(root, (0, 0))
        again = {"address": choice, "path": str(kernel.image), "version": release[:3]}[by]
        assert lookup.find(again) == kernel
        assert root.stat().st_mtime > 0
    publish(server, "k", "6.2", layer({"boot/vmlinuz": bzimage("6.2.0")}))
    assert str(lookup.find(f"oci:{server.address}/k:6.2")) == "6.2.0"
    assert len(list((own_cache / "kernels").iterdir())) == 3


def test_what_came_of_a_file_that_nobody_goes_on_with_goes(server: Server, own_cache: Path) -> None:
    for name in ("/old", "/new"):
        server.files[name] = bytes(1000)
    with pytest.raises(ZeroDivisionError), downloaded(Remote(server.url("/old"), "old")):
        raise ZeroDivisionError
    left = list((own_cache / "downloads").iterdir())
    assert len(left) == 2
    for path in left:
        os.utime(path, (0, 0))
    with downloaded(Remote(server.url("/new"), "new")):
        assert not [path for path in left if path.exists()]


def test_the_command_says_where_they_came_from(server: Server, own_cache: Path) -> None:
    publish(server, "k", "6.6", layer({"boot/vmlinuz": bzimage("6.6.9")}))
    choice = f"oci:{server.address}/k:6.6"
    kernel = lookup.find(choice)
    assert kernel is not None
    command = [sys.executable, "-m", "pytest_bpf", "kernels"]
    environment = os.environ | {"PYTEST_BPF_CACHE": str(own_cache)}
    shown = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    (line,) = (line for line in shown.splitlines() if choice in line)
    assert re.fullmatch(rf"{choice} +6\.6\.9 +in the cache, 1 MB, as k-6\.6-\w{{12}}", line)


def test_references() -> None:
    hub = oci.parse("oci:docker.io/library/x")
    assert hub.url("tags") == "https://registry-1.docker.io/v2/library/x/tags"
    assert oci.parse("oci:localhost:5000/x:y").url() == "http://localhost:5000/v2/x"
    assert str(oci.parse(f"oci:ghcr.io/x/y@sha256:{'a' * 64}")).endswith("a" * 64)
