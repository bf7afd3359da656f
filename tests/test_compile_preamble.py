"""The includes that a source begins with, parsed once for many sources."""

from __future__ import annotations

import io
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from elftools.elf.elffile import ELFFile

from pytest_bpf.cache import Cache
from pytest_bpf.compile import CompiledObject, compile_source
from pytest_bpf.compile.preamble import STORES, length
from pytest_bpf.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = """\
/* Counts
   bytes. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>	// as all do
#include "own.h"
"""
BODY = """
const volatile __u16 port;

SEC("xdp") int count(struct xdp_md *ctx)
{
	own += ctx->data_end - ctx->data + NUMBER;
	return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""
OWN = "__u64 own;\nstatic inline int f(void) { return 1; }\n"
"""A header without a guard."""

COMPILER = """\
#!/bin/sh
echo "$@" >> %s
exec %s "$@"
"""


@dataclass
class Project:
    """A folder with a source, and a compiler that notes how it is called."""

    folder: Path
    compiler: str
    log: Path

    def compile(self, number: str, head: str = HEAD, **options: Any) -> CompiledObject:
        """Compile the source with another number in it, and nothing of an earlier time."""
        source = self.folder / "count.bpf.c"
        source.write_text(head + BODY.replace("NUMBER", number))
        self.log.write_text("")
        cache = Cache(self.folder / "cache")
        shutil.rmtree(cache.folder / "entries", ignore_errors=True)
        return compile_source(source, compiler=self.compiler, cache=cache, **options)

    @property
    def runs(self) -> list[bool]:
        """Of each object that the compiler made last: whether it began behind the includes."""
        calls = self.log.read_text().splitlines()
        return ["-include-pch" in call for call in calls if "-x c -c" in call]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "own.h").write_text(OWN)
    log, compiler = tmp_path / "log", tmp_path / "clang"
    compiler.write_text(COMPILER % (log, shutil.which("clang")))
    compiler.chmod(0o755)
    STORES.append(Cache(tmp_path / "store"))
    project = Project(folder, str(compiler), log)
    project.compile("0")  # makes vmlinux.h
    yield project
    STORES.pop()


def sections(compiled: CompiledObject) -> dict[str, bytes]:
    elf = ELFFile(io.BytesIO(compiled.object.read_bytes()))
    return {section.name: section.data() for section in elf.iter_sections()}


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("#include <a.h>\nint a;\n", 15),
        (
            '// a\\\nb\n\n#include <a.h> /* c\n */\n#define B \\\n2\n  # include "d.h"\nint a;',
            65,
        ),
        ("#define A 1\nint a;\n", 0),
        ("#if A\n#include <a.h>\n#endif\n", 0),
        ("#include <a.h>\n#if A\n#include <b.h>\n#endif\n", 15),
        ("int a;\n#include <a.h>\n", 0),
        ("/* #include <a.h>\n", 0),
        ("", 0),
    ],
)
def test_a_source_begins_with_its_first_includes(source: str, size: int) -> None:
    assert length(source.encode()) == size


def test_objects_are_as_they_are_without(project: Project) -> None:
    """Also those of a header that may be included once: it is not read a second time."""
    behind = [project.compile(str(number)) for number in (1, 2)]
    assert project.runs == [True]
    STORES.append(Cache(project.folder / "empty"))
    whole = project.compile("2")
    STORES.pop()
    assert project.runs == [False]
    assert sections(behind[1]) == sections(whole)
    assert sections(behind[1]) != sections(behind[0])


def test_changed_headers_are_read_again(project: Project) -> None:
    project.compile("1")
    assert project.runs == [True]
    (project.folder / "own.h").write_text(OWN.replace("__u64", "__u32"))
    assert b"__u32" in sections(project.compile("1"))[".BTF"]
    assert project.runs == [True]
    (project.folder / "vmlinux.h").write_text("#error mine\n")  # it comes before ours
    with pytest.raises(CompileError, match="mine"):
        project.compile("1")
    assert project.runs == [False]
    time.sleep(0.01)
    (project.folder / "vmlinux.h").unlink()
    (project.folder / "own.h").write_text("#error gone\n")
    with pytest.raises(CompileError, match="gone"):
        project.compile("1")


def test_what_clang_says_is_what_it_says_without(project: Project) -> None:
    with pytest.raises(CompileError) as behind:
        project.compile("missing")
    assert project.runs == [True, False]
    assert project.compile("1, 2").warnings
    assert project.runs == [True, False]
    STORES.append(Cache(project.folder / "empty"))
    with pytest.raises(CompileError) as whole:
        project.compile("missing")
    STORES.pop()
    assert str(behind.value) == str(whole.value)
    assert behind.value.output == whole.value.output


def test_sources_are_compiled_as_a_whole_where_the_includes_do_not_stand_alone(
    project: Project,
) -> None:
    """The last one ends within a declaration; an option includes something before them."""
    (project.folder / "begun.h").write_text("static\n")
    head = HEAD.replace("own.h", "begun.h") + "__u64 own;\n"
    for number in ("1", "2"):
        assert not project.compile(number, head).warnings
        assert project.runs == [False]
    early = project.folder / "early.h"
    early.write_text("#define EARLY 1\n")
    for number in ("3", "4"):
        project.compile(number, flags=["-include", str(early)])
        assert project.runs == [False]


def test_without_a_store_nothing_is_kept(project: Project, tmp_path: Path) -> None:
    stores, STORES[:] = STORES[:], []
    try:
        project.compile("1")
        project.compile("2")
        assert project.runs == [False]
    finally:
        STORES[:] = stores
    assert not list((tmp_path / "store").glob("objects/*"))
