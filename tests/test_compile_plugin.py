"""Compiling in a session: warnings, all errors, the project's own command and flags, linking."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.compile import find_compiler
from pytest_bpf.errors import CompileError
from pytest_bpf.loader import Loader

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["pytester"]

PROGRAM = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
SEC("socket") int p(void *ctx) {
    int n;
    return n;
}
"""

TWICE = """
def test_one(bpf): bpf.compile("careless.bpf.c")
def test_two(bpf): bpf.compile("careless.bpf.c")
"""


def test_a_warning_of_the_compiler_is_shown_once(pytester: pytest.Pytester) -> None:
    (pytester.path / "careless.bpf.c").write_text(PROGRAM)
    pytester.makepyfile(TWICE)
    for _ in range(2):  # the second time the object is in the cache
        result = pytester.runpytest_subprocess()
        result.assert_outcomes(passed=2, warnings=1)
        result.stdout.fnmatch_lines(["*careless.bpf.c:6: CompilerWarning: *-Wuninitialized*"])


def test_warnings_can_be_errors(pytester: pytest.Pytester) -> None:
    (pytester.path / "careless.bpf.c").write_text(PROGRAM)
    pytester.makepyfile(TWICE)
    result = pytester.runpytest_subprocess("-W", "error::pytest_bpf.errors.CompilerWarning")
    result.assert_outcomes(failed=1, passed=1)


def test_all_errors_are_shown_with_vv(pytester: pytest.Pytester) -> None:
    text = "".join(f"int v{number} = nothing{number};\n" for number in range(30))
    (pytester.path / "wrong.bpf.c").write_text(text)
    pytester.makepyfile('def test(bpf): bpf.load("wrong.bpf.c")')
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*wrong.bpf.c:1: *nothing0*", "*wrong.bpf.c:4: *nothing3*"])
    result.stdout.no_fnmatch_line("*nothing20*")
    pytester.runpytest_subprocess("-vv").stdout.fnmatch_lines(["*nothing20*", "*nothing29*"])


MAKEFILE = """
build/%.bpf.o: %.bpf.c
\tmkdir -p build
\t@echo built by make
\tclang -target bpf -g -O2 -DFROM_MAKE=7 -c $< -o $@
"""

MADE = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
SEC("socket") int p(void *ctx) { return FROM_MAKE; }
"""


def test_the_project_s_own_command(pytester: pytest.Pytester) -> None:
    if not shutil.which("clang"):
        pytest.skip("there is no clang on PATH for the Makefile")
    (pytester.path / "made.bpf.c").write_text(MADE)
    (pytester.path / "Makefile").write_text(MAKEFILE)
    pytester.makeini(
        "[pytest]\nbpf_build_command = CPATH=/usr/include/$(uname -m)-linux-gnu make {object}\n"
        "bpf_build_object = build/{name}.bpf.o\n"
    )
    pytester.makepyfile("""
        def test(bpf):
            obj = bpf.load("made.bpf.c")
            assert obj.programs["p"].test_run(bytes(14)).retval == 7
        """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    (pytester.path / "Makefile").write_text("all:\n")
    (pytester.path / "build/made.bpf.o").unlink()
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CompileError: *ended with code 2 (make*No rule to make target*"])


def test_half_a_command_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nbpf_build_command = make {object}\n")
    pytester.makepyfile("def test(bpf): pass")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: bpf_build_command and bpf_build_object: give both*"])


def test_the_flags_of_compile_commands(pytester: pytest.Pytester) -> None:
    (pytester.path / "include").mkdir()
    (pytester.path / "include/own.h").write_text("#define FROM_HEADER 5\n")
    (pytester.path / "flagged.bpf.c").write_text(
        '#include "own.h"\n' + MADE.replace("FROM_MAKE", "FROM_HEADER + FROM_FLAG")
    )
    (pytester.path / "compile_commands.json").write_text(
        f"""[{{"directory": "{pytester.path}", "file": "flagged.bpf.c", "command":
        "clang -target bpf -Iinclude -DFROM_FLAG=4 -O2 -g -c flagged.bpf.c -o out.o"}}]"""
    )
    pytester.makeini("[pytest]\nbpf_compile_commands = compile_commands.json\n")
    pytester.makepyfile("""
        def test(bpf):
            obj = bpf.load("flagged.bpf.c")
            assert obj.programs["p"].test_run(bytes(14)).retval == 9
        """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


COUNT = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
extern int weight(int n);
extern long total;
SEC("socket") int p(void *ctx) { total += 1; return weight(4); }
"""

WEIGHT = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
long total;
int weight(int n) { return n * 3; }
"""


def test_several_sources_are_linked(tmp_path: Path) -> None:
    (tmp_path / "count.bpf.c").write_text(COUNT)
    (tmp_path / "weight.bpf.c").write_text(WEIGHT)
    with Loader(tmp_path) as bpf:
        obj = bpf.load(["count.bpf.c", "weight.bpf.c"])
        assert obj.programs["p"].test_run(bytes(14)).retval == 12
        assert obj.globals["total"] == 1
        first = bpf.compile(["count.bpf.c", "weight.bpf.c"])
        assert first.cached
        (tmp_path / "weight.bpf.c").write_text(WEIGHT.replace("n * 3", "n * 5"))
        again = bpf.compile(["count.bpf.c", "weight.bpf.c"])
        assert again.object != first.object
        assert bpf.load(again.object).programs["p"].test_run(bytes(14)).retval == 20


def test_a_static_library_is_linked(tmp_path: Path) -> None:
    if not shutil.which("ar"):
        pytest.skip("there is no ar to make a library with")
    with Loader(tmp_path) as bpf:
        member = bpf.compile(WEIGHT, name="weight").object
        subprocess.run(("ar", "rc", tmp_path / "libweight.a", member), check=True)
        obj = bpf.load([COUNT, "libweight.a"], name="count")
        assert obj.programs["p"].test_run(bytes(14)).retval == 12


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.o").write_text("no object")
    with Loader(tmp_path) as bpf:
        with pytest.raises(CompileError, match=r"cannot be linked: .*weight"):
            bpf.load([WEIGHT, WEIGHT], name="weight")
        with pytest.raises(CompileError, match=r"text\.o cannot be linked: "):
            bpf.load([WEIGHT, "text.o"], name="weight")
        with pytest.raises(CompileError, match=r"gone\.o cannot be linked: No such file"):
            bpf.load([WEIGHT, "gone.o"], name="weight")
        with pytest.raises(CompileError, match="list of sources is empty"):
            bpf.load([])


def test_a_compiler_for_one_call(tmp_path: Path) -> None:
    with Loader(tmp_path) as bpf:
        objects = {
            name: bpf.compile(MADE.replace("FROM_MAKE", "1"), compiler=name).object
            for name in ("clang", "zig")
        }
        assert objects["clang"] != objects["zig"]
        assert {compiler.name for compiler in bpf.compilers} == {"clang", "zig"}
        with pytest.raises(CompileError, match="did you mean 'clang'"):
            bpf.compile(MADE, compiler="clagn")
        bpf.compile(MADE.replace("FROM_MAKE", "1"), compiler=find_compiler("zig"))


def test_legacy_maps_are_refused_in_one_sentence(tmp_path: Path) -> None:
    text = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct bpf_map_def { unsigned type, key_size, value_size, max_entries, map_flags; };
struct bpf_map_def SEC("maps") old = { BPF_MAP_TYPE_ARRAY, 4, 8, 1 };
SEC("socket") int p(void *ctx) { int key = 0; return bpf_map_lookup_elem(&old, &key) != 0; }
"""
    with Loader(tmp_path) as bpf, pytest.raises(Exception, match=r"legacy map def.* libbpf v1\.0"):
        bpf.load(text, name="legacy")


@pytest.mark.parametrize(
    ("flag", "words"),
    [("-Wnope", "unknown warning option '-Wnope'"), ("-Lnowhere", "argument unused *'-Lnowhere'")],
)
def test_a_warning_without_a_place_is_shown_too(
    pytester: pytest.Pytester, flag: str, words: str
) -> None:
    pytester.makeini(f"[pytest]\nbpf_cflags = {flag}")
    pytester.makepyfile("def test(bpf): bpf.compile('int x;\\n', name='placeless')")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines([f"*placeless*.bpf.c:0: CompilerWarning: {words}*"])
