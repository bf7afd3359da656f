"""Kernels by name: what packages offer, and which of them is meant."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import BpfError
from pytest_bpf.kernels import debian, lookup, packages

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    *("linux-image-6.1.0-56-amd64", "linux-image-6.1.0-57-amd64", "linux-image-6.1.0-57-rt-amd64"),
    *("linux-image-6.1.0-9-amd64", "linux-image-6.1.0-57-amd64-unsigned", "linux-image-amd64"),
    *("linux-image-6.12.117+deb12-amd64", "linux-image-6.12.101+deb12-cloud-amd64"),
    *("linux-image-6.12.117+deb12-amd64-dbg", "linux-image-6.12-amd64-signed-template"),
    *("linux-image-unsigned-6.8.0-45-generic", "linux-image-6.8.0-45-lowlatency"),
)


@pytest.mark.unit
def test_what_is_no_kernel_to_boot_is_left_out() -> None:
    releases = [package.release for package in packages.parse(NAMES)]
    assert releases == [
        "6.12.117+deb12-amd64",
        "6.12.101+deb12-cloud-amd64",
        "6.8.0-45-generic",
        "6.8.0-45-lowlatency",
        "6.1.0-57-rt-amd64",
        "6.1.0-57-amd64",
        "6.1.0-56-amd64",
        "6.1.0-9-amd64",
    ]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("6.12", "6.12.117+deb12-amd64"),
        ("6.1", "6.1.0-57-amd64"),
        ("6.1-rt", "6.1.0-57-rt-amd64"),
        ("6.12-cloud", "6.12.101+deb12-cloud-amd64"),
        ("6.8", "6.8.0-45-generic"),
        ("6.8-lowlatency", "6.8.0-45-lowlatency"),
        ("6.1.0-9", "6.1.0-9-amd64"),
        (">=6.2,<6.10", "6.8.0-45-generic"),
        (">=6.6", "6.12.117+deb12-amd64"),
        ("<6.12", "6.8.0-45-generic"),
    ],
)
def test_the_newest_that_is_meant(text: str, release: str) -> None:
    assert packages.choose(text, NAMES).release == release


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5.4", r"no kernel 'debian:5\.4' in the package lists; .*debian:6\.1"),
        ("6.1-tr", r"did you mean 'debian:6\.1-rt'"),
        ("6.8-rt", r"no kernel 'debian:6\.8-rt'"),
        (">=new", r"'>=new' is no range of versions; write '>=6\.6'"),
        ("", r"no kernel 'debian:'"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(text: str, message: str) -> None:
    with pytest.raises(BpfError, match=message):
        packages.choose(text, NAMES)


@pytest.mark.unit
def test_without_package_lists_it_says_how_to_get_them() -> None:
    with pytest.raises(BpfError, match="apt knows no kernels; run 'apt-get update'"):
        packages.choose("6.12", [])


@pytest.mark.unit
def test_apt_is_asked_again_when_its_lists_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, lists = tmp_path / "bin/apt-cache", tmp_path / "lists"
    lists.mkdir()
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho asked >> asked\necho linux-image-6.1.0-57-amd64\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PYTEST_BPF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.setattr(debian, "LISTS", lists)
    monkeypatch.chdir(tmp_path)
    os.utime(lists, (0, 0))
    for _ in range(2):
        assert debian.package_names() == ["linux-image-6.1.0-57-amd64"]
        assert (tmp_path / "asked").read_text() == "asked\n"
    os.utime(lists, (2**32, 2**32))
    assert debian.package_names() == ["linux-image-6.1.0-57-amd64"]
    assert (tmp_path / "asked").read_text() == "asked\nasked\n"


def test_a_version_of_the_current_kernel_is_that_kernel() -> None:
    if not packages.parse(debian.package_names()):
        pytest.skip("apt has no package lists")
    current = debian.current()
    release = current.release
    assert lookup.find(f"debian:{release.rpartition('-')[0]}") == current


def test_the_command_lists_them() -> None:
    if not packages.parse(debian.package_names()):
        pytest.skip("apt has no package lists")
    debian.current()
    command = [sys.executable, "-m", "pytest_bpf", "kernels"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("host  ")
    line = next(line for line in shown.splitlines() if debian.current().release in line)
    assert line.startswith("debian:")
    assert "in the cache, " in line
    wrong = [*command, "--remove", "5.4"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no '5.4'" in done.stderr


def features(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_bpf", "kernels", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_what_a_kernel_has() -> None:
    done = features("features", "host")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == f"{platform.release()}, {platform.machine()}"
    rows = {tuple(line.split()[:4]) for line in lines}
    assert {("map", "hash", "yes", "3.19"), ("program", "xdp", "yes", "4.8")} <= rows
    assert any(row[:2] == ("attach", "tracepoint") for row in rows)


def test_a_kernel_that_is_not_there_has_no_features() -> None:
    done = features("features", "0.99")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pytest-bpf kernels features: no kernel '0.99'")
    assert "write: features KERNEL" in features("feature", "host").stderr
