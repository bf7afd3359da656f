"""The suite's sources and kernel: Debian's packages, unpacked into the cache, and compiled."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.cache import open_cache
from pytest_bpf.compile import compile_source
from pytest_bpf.errors import BpfError, UnavailableError
from pytest_bpf.kernel.btf.decl_tags import decl_tags
from pytest_bpf.objects.elf import sections
from pytest_bpf.plugin.collect.annotated import Case, cases
from pytest_bpf.plugin.collect.expectation import read_annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = "linux-source-6.12"
KERNELS = r"linux-image-6\.12\.\d+\+deb\d+-(amd64|arm64)-unsigned"
FOLDERS = ("tools/testing/selftests/bpf", "tools/lib/bpf", "tools/include", "tools/arch/*/include")
FILES = ("scripts/bpf_doc.py", "include/uapi/linux/bpf.h")
TARGET = f"-D__TARGET_ARCH_{ {'x86_64': 'x86', 'aarch64': 'arm64'}[platform.machine()] }"
"""As the suite's own Makefile defines it."""

ANNOTATIONS = ("__success", "__failure", "__retval", "__msg", "__auxiliary")


@dataclass(frozen=True)
class Suite:
    """The compiled suite: each case with its object, and the files that do not compile, and why."""

    cases: tuple[tuple[Path, Case], ...]
    broken: tuple[tuple[str, str], ...]


def sources() -> Path:
    """Return the folder of the sources, downloaded and unpacked when they are not there.

    Raises `UnavailableError` where they cannot be had.
    """
    cache = open_cache()
    folder = cache.folder / "selftests" / PACKAGE
    with cache.lock("selftests"):
        if not folder.exists():
            with cache.workspace() as work:
                _unpack(_download(PACKAGE, work), work)
                folder.parent.mkdir(exist_ok=True)
                shutil.move(work / PACKAGE, folder)
    return folder


def kernel() -> Path:
    """Return the image of Debian's newest 6.12 kernel, downloaded and unpacked once.

    Raises `UnavailableError` where there is none to be had.
    """
    cache = open_cache()
    folder = cache.folder / "selftests" / "kernel"
    with cache.lock("selftests"):
        if not folder.exists():
            names = _command(["apt-cache", "search", "--names-only", f"^{KERNELS}$"])
            packages = re.findall(r"(?m)^\S+", names)
            if not packages:
                raise UnavailableError("apt-cache knows no package linux-image-6.12...-unsigned")
            with cache.workspace() as work:
                package = _download(max(packages, key=_version), work)
                _command(["dpkg-deb", "-x", str(package), str(work / "kernel")])
                folder.parent.mkdir(exist_ok=True)
                shutil.move(work / "kernel", folder)
    return next((folder / "boot").glob("vmlinuz-*"))


def _version(package: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", package)]


def _download(package: str, work: Path) -> Path:
    print(f"downloading and unpacking {package}, once", file=sys.stderr)
    _command(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], work)
    return next(work.glob("*.deb"))


def _command(words: Sequence[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise UnavailableError(f"there is no {words[0]}") from None
    except subprocess.CalledProcessError as error:
        why = error.stderr.strip().splitlines()[-1:] or [f"exit status {error.returncode}"]
        raise UnavailableError(f"{' '.join(words)}: {why[0]}") from None
    return done.stdout


def _unpack(package: Path, work: Path) -> None:
    """Unpack what the suite needs; the sources are an archive within the package's."""
    members = [f"{PACKAGE}/{folder}/*" for folder in FOLDERS]
    members += [f"{PACKAGE}/{file}" for file in FILES]
    inner = f"./usr/src/{PACKAGE}.tar.xz"
    steps = (
        ["dpkg-deb", "--fsys-tarfile", str(package)],
        ["tar", "xO", inner],
        ["tar", "xJ", "-C", str(work), "--wildcards", *members],
    )
    before = None
    processes = []
    for step in steps:
        process = subprocess.Popen(step, stdin=before, stdout=subprocess.PIPE)
        before = process.stdout
        processes.append(process)
    for process in reversed(processes):
        process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    headers = work / PACKAGE / "headers" / "bpf"
    headers.mkdir(parents=True)
    for header in (work / PACKAGE / "tools/lib/bpf").glob("*.h"):
        shutil.copy(header, headers)
    writer = [sys.executable, "scripts/bpf_doc.py", "--header", "--file", FILES[1]]
    with (headers / "bpf_helper_defs.h").open("wb") as output:
        subprocess.run(writer, cwd=work / PACKAGE, stdout=output, check=True)


def include_dirs(folder: Path) -> list[Path]:
    """Return where the suite's headers are."""
    tests = folder / "tools/testing/selftests/bpf"
    return [tests / "progs", tests, folder / "headers", folder / "tools/include/uapi"]


def annotated_files(folder: Path, patterns: Sequence[str] = ("*",)) -> list[Path]:
    """Return the files that have annotations and match one of ``patterns``."""
    programs = folder / "tools/testing/selftests/bpf/progs"
    return [
        path
        for path in sorted({path for each in patterns for path in programs.glob(f"{each}.c")})
        if any(word in path.read_text(errors="replace") for word in ANNOTATIONS)
    ]


def suite(patterns: Sequence[str] = ("*",)) -> Suite:
    """Compile every annotated file that matches, and return the cases.

    Raises `UnavailableError` where the sources cannot be had.
    """
    folder = sources()
    include = include_dirs(folder)

    def one(path: Path) -> tuple[Path, Path | str]:
        try:
            return path, compile_source(
                path, include_dirs=include, flags=["-Wno-everything", TARGET]
            ).object
        except BpfError as error:
            return path, str(error).splitlines()[0]

    def btf_file(source: Path, name: str) -> str:
        return str(one(source.with_name(name.replace(".bpf.o", ".c")))[1]) if name else ""

    found: list[tuple[Path, Case]] = []
    broken: list[tuple[str, str]] = []
    with ThreadPoolExecutor(2) as threads:
        for path, compiled in threads.map(one, annotated_files(folder, patterns)):
            if isinstance(compiled, str):
                broken.append((path.name, compiled))
                continue
            content = compiled.read_bytes()
            tags = decl_tags(sections(content)[".BTF"])
            notes = {name: read_annotations(texts) for name, texts in tags.items()}
            programs = {name: note for name, note in notes.items() if note is not None}
            found += [
                (compiled, replace(case, btf_path=btf_file(path, case.btf_path)))
                for case in cases(Path(path.name), content, programs)
            ]
    return Suite(tuple(found), tuple(broken))
