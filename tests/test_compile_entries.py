from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.cache import Cache
from pytest_bpf.compile import CompiledObject, compile_source, find_compiler
from pytest_bpf.compile.headers import parse_dependencies

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Project:
    """A source, a header, and a cache of their own; `hit` says whether no compiler had to run."""

    folder: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def cache(self) -> Cache:
        return Cache(self.folder / "cache")

    def put(self, name: str, text: str, age: float = 10) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)
        return path

    def compile(self, **options: Any) -> CompiledObject:
        return compile_source(
            self.folder / "p.bpf.c", cache=self.cache, **{**self.options, **options}
        )

    def hit(self, **options: Any) -> bool:
        return self.compile(**options).cached


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.put("lib/h.h", "#define X 1\n")
    project.put("p.bpf.c", "#include <h.h>\nint x = X;\n")
    project.options["include_dirs"] = [tmp_path / "lib"]
    project.options["compiler"] = find_compiler("clang", cache=project.cache)
    assert not project.hit()
    assert project.hit()
    return project


def test_a_changed_source(project: Project) -> None:
    project.put("p.bpf.c", "#include <h.h>\nint y = X;\n")
    assert not project.hit()
    assert project.hit()


def test_a_source_changed_back(project: Project) -> None:
    before = project.compile().object.read_bytes()
    project.put("p.bpf.c", "#include <h.h>\nint y = X;\n")
    assert project.compile().object.read_bytes() != before
    project.put("p.bpf.c", "#include <h.h>\nint x = X;\n")
    assert project.hit()
    assert project.compile().object.read_bytes() == before


def test_a_changed_header(project: Project) -> None:
    before = project.compile().object.read_bytes()
    project.put("lib/h.h", "#define X 2\n", age=20)
    assert not project.hit()
    assert project.compile().object.read_bytes() != before


def test_a_header_of_a_header(project: Project) -> None:
    project.put("lib/inner.h", "#define X 1\n")
    project.put("lib/h.h", '#include "inner.h"\n', age=20)
    assert not project.hit()
    assert project.hit()
    project.put("lib/inner.h", "#define X 3\n", age=20)
    assert not project.hit()


def test_a_touched_header_is_the_same(project: Project) -> None:
    os.utime(project.folder / "lib" / "h.h", (5, 5))
    assert project.hit()
    (entry,) = (project.cache.folder / "entries").iterdir()
    assert json.loads(entry.read_text())[3][0][3] == 5 * 10**9  # its status is known again


def test_a_fresh_header_is_compared_by_content(project: Project) -> None:
    """Two writes within a tick of the clock leave the same size and time."""
    header = project.put("lib/h.h", "#define X 4\n", age=0.5)
    status = header.stat()
    assert not project.hit()
    with header.open("r+") as file:
        file.write("#define X 5\n")
    os.utime(header, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not project.hit()


def test_a_missing_header(project: Project) -> None:
    (project.folder / "lib" / "h.h").rename(project.folder / "h.h")
    assert not project.hit(include_dirs=[project.folder])
    assert not project.hit(include_dirs=[project.folder / "lib", project.folder])


@pytest.mark.parametrize("place", ["h.h", "first/h.h"])
def test_a_header_that_newly_comes_first(project: Project, place: str) -> None:
    project.put("p.bpf.c", '#include "h.h"\nint x = X;\n')
    first = project.folder / "first"
    first.mkdir()
    folders = [first, project.folder / "lib"]
    before = project.compile(include_dirs=folders).object.read_bytes()
    assert project.hit(include_dirs=folders)
    project.put(place, "#define X 9\n")
    assert not project.hit(include_dirs=folders)
    assert project.compile(include_dirs=folders).object.read_bytes() != before


def test_a_system_header_that_is_newly_shadowed(project: Project) -> None:
    project.put("p.bpf.c", "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nint x;\n")
    assert not project.hit()
    assert project.hit()
    project.put("lib/other.h", "")
    assert project.hit()
    (project.folder / "lib" / "bpf").mkdir()
    project.put("lib/bpf/bpf_helpers.h", "#define X 1\n")
    assert not project.hit()


@pytest.mark.parametrize(
    "options",
    [
        {"flags": ["-O1"]},
        {"defines": {"Y": 1}},
        {"name": "other"},
        {"include_dirs": ["/usr/include/bpf", "{lib}"]},
    ],
    ids=["flags", "defines", "name", "include_dirs"],
)
def test_other_options(project: Project, options: dict[str, Any]) -> None:
    if folders := options.get("include_dirs"):
        lib = str(project.folder / "lib")
        options = {"include_dirs": [folder.format(lib=lib) for folder in folders]}
    assert not project.hit(**options)
    assert project.hit(**options)
    assert project.hit()


def test_another_compiler(project: Project) -> None:
    clang, zig = (find_compiler(name, cache=project.cache) for name in ("clang", "zig"))
    assert project.hit(compiler=clang)
    assert not project.hit(compiler=zig)
    assert project.hit(compiler=zig)
    assert not project.hit(compiler=replace(clang, identity="upgraded"))


def test_search_paths_of_the_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("C_INCLUDE_PATH", str(project.folder))
    assert not project.hit()


def test_only_objects_with_vmlinux_h_depend_on_the_kernel(project: Project) -> None:
    btf = project.folder / "btf"
    shutil.copyfile("/sys/kernel/btf/vmlinux", btf)
    assert project.hit(btf=btf)
    project.put("p.bpf.c", '#include "vmlinux.h"\npid_t x = 1;\n')
    assert not project.hit()
    assert project.hit()
    assert not project.hit(btf=btf)  # by its path another kernel's
    assert project.hit(btf=btf)
    assert project.hit()


@pytest.mark.parametrize("damage", ["truncated", "one byte", "gone", "empty"])
def test_damaged_objects(project: Project, damage: str) -> None:
    path = project.compile().object
    whole = path.read_bytes()
    status = path.stat()
    if damage == "gone":
        path.unlink()
    else:
        changed = bytes([*whole[:-1], whole[-1] ^ 1])
        path.write_bytes({"truncated": whole[:100], "one byte": changed, "empty": b""}[damage])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not project.hit()
    assert project.compile().object.read_bytes() == whole
    assert project.hit()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"null", b"[1, 2, 3, 4, 5]", b"\xff\x00", b'["a","b","",[["x"]],[]]', b'["'],
)
def test_damaged_entries(project: Project, damage: bytes) -> None:
    (entry,) = (project.cache.folder / "entries").iterdir()
    entry.write_bytes(damage)
    assert not project.hit()
    assert project.hit()


def test_a_damaged_text(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    path = compile_source("int x = 1;\n", cache=cache).source
    path.write_text("int x")
    assert compile_source("int x = 1;\n", cache=cache).cached
    assert path.read_text() == "int x = 1;\n"


def test_a_lost_vmlinux_h(project: Project) -> None:
    project.put("p.bpf.c", '#include "vmlinux.h"\npid_t x = 1;\n')
    project.compile()
    (header,) = project.cache.folder.rglob("vmlinux.h")
    header.unlink()
    assert not project.hit()
    assert project.hit()


def test_a_header_that_changes_during_the_compilation(project: Project) -> None:
    clang, header = shutil.which("clang"), project.folder / "lib" / "h.h"
    wrapper = project.put("clang-9", f'#!/bin/sh\n{clang} "$@" && echo "#define X 7" >{header}\n')
    wrapper.chmod(0o700)
    hasty = replace(find_compiler("clang", cache=project.cache), command=(str(wrapper),))
    before = project.compile().object.read_bytes()
    assert project.compile(compiler=hasty).object.read_bytes() == before
    wrapper.write_text(f'#!/bin/sh\nexec {clang} "$@"\n')
    assert not project.hit(compiler=hasty)
    assert project.compile(compiler=hasty).object.read_bytes() != before


PARALLEL = """
import sys
from pathlib import Path
from pytest_bpf.cache import Cache
from pytest_bpf.compile import compile_source
sys.stdin.read()
compiled = compile_source(Path("p.bpf.c"), cache=Cache(Path("cache")))
print(compiled.cached, compiled.object.name)
"""


def test_eight_processes_at_once(tmp_path: Path) -> None:
    Project(tmp_path).put("p.bpf.c", '#include "vmlinux.h"\npid_t x = 1;\n')
    (tmp_path / "cache").mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PARALLEL],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sorted(cached for cached, _ in answers) == ["False"] + ["True"] * 7
    assert len({name for _, name in answers}) == 1
    assert not list((tmp_path / "cache" / "tmp").iterdir())


def test_dependencies_are_read_back() -> None:
    rule = "object: a.c \\\n  /my\\ dir/b.h /c$$d.h /e\\#f.h /g:h.h\n"
    assert parse_dependencies(rule) == ["a.c", "/my dir/b.h", "/c$d.h", "/e#f.h", "/g:h.h"]
