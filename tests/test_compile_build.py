from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from pytest_bpf.cache import Cache
from pytest_bpf.compile import BuildCommand, Compiler, compile_source, find_compiler
from pytest_bpf.errors import CompileError, UnavailableError
from pytest_bpf.kernel.sys import libbpf

XDP = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int pass(struct xdp_md *ctx)
{
    return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
"""

TRACEPOINT = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

int tgid = 0;

SEC("tp/syscalls/sys_enter_getpid")
int enter(void *ctx)
{
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    tgid = BPF_CORE_READ(task, tgid);
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["clang", "zig"])
def compiler(request: pytest.FixtureRequest, cache: Cache) -> Compiler:
    return find_compiler(request.param, cache=cache)


def load(content: bytes) -> None:
    """Let the kernel verify every program of an object."""
    opened = libbpf.call("bpf_object__open_mem", content, len(content), None)
    try:
        libbpf.call("bpf_object__load", opened)
    finally:
        libbpf.call("bpf_object__close", opened)


@pytest.mark.parametrize("text", [XDP, TRACEPOINT], ids=["xdp", "vmlinux"])
def test_objects_load(compiler: Compiler, cache: Cache, text: str) -> None:
    compiled = compile_source(text, compiler=compiler, cache=cache)
    content = compiled.object.read_bytes()
    assert ctypes.c_uint16.from_buffer_copy(content, 18).value == 247  # EM_BPF
    assert not compiled.warnings
    load(content)


def test_a_file_by_path(compiler: Compiler, cache: Cache, tmp_path: Path) -> None:
    source = tmp_path / "pass.bpf.c"
    source.write_text(XDP)
    compiled = compile_source(source, compiler=compiler, cache=cache)
    assert compiled.source == source
    assert not compiled.cached
    assert compiled.seconds > 0
    assert compiled.object.name.startswith("pass-")
    assert str(source).encode() in compiled.object.read_bytes()  # what line information names


def test_no_vmlinux_h_unless_included(compiler: Compiler, tmp_path: Path) -> None:
    compile_source(XDP, compiler=compiler, cache=Cache(tmp_path), btf=tmp_path / "none")
    assert not list(tmp_path.rglob("vmlinux.h"))


def test_vmlinux_h_without_btf(compiler: Compiler, cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=rf"no BTF at {tmp_path}/none to make vmlinux.h of"):
        compile_source(TRACEPOINT, compiler=compiler, cache=cache, btf=tmp_path / "none")


def test_own_vmlinux_h_wins(compiler: Compiler, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "vmlinux.h").write_text("typedef int own;\n")
    source = '#include "vmlinux.h"\nown x = 1;\n'
    compile_source(source, compiler=compiler, cache=cache, include_dirs=[tmp_path])
    with pytest.raises(CompileError, match="unknown type name 'own'"):
        compile_source(source, compiler=compiler, cache=cache)


def test_vmlinux_h_included_by_a_header(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "mine.h").write_text('#include "vmlinux.h"\n')
    source = '#include "mine.h"\npid_t x = 1;\n'
    cache = Cache(tmp_path / "cache")
    compile_source(source, compiler=compiler, cache=cache, include_dirs=[tmp_path])
    assert list(tmp_path.rglob("vmlinux-*/vmlinux.h"))


def test_headers_beside_the_source_and_below_include_dirs(
    compiler: Compiler, cache: Cache, tmp_path: Path
) -> None:
    (tmp_path / "beside.h").write_text("#define BESIDE 1\n")
    (tmp_path / "lib" / "sub").mkdir(parents=True)
    (tmp_path / "lib" / "sub" / "below.h").write_text("#define BELOW 2\n")
    source = tmp_path / "a.bpf.c"
    source.write_text('#include "beside.h"\n#include <sub/below.h>\nint x = BESIDE + BELOW;\n')
    compile_source(source, compiler=compiler, cache=cache, include_dirs=[tmp_path / "lib"])


def test_defines_and_flags(compiler: Compiler, cache: Cache) -> None:
    source = """
    _Static_assert(NUMBER == 7 && FLAG == 1 && ON == 1, "");
    _Static_assert(sizeof(TEXT) == 4, "");
    _Static_assert(FROM_FLAGS == 3, "");
    """
    defines = {"NUMBER": 7, "FLAG": None, "ON": True, "TEXT": '"abc"'}
    compile_source(
        source, compiler=compiler, cache=cache, defines=defines, flags=["-DFROM_FLAGS=3"]
    )
    with pytest.raises(CompileError, match=r"FROM_FLAGS|static"):
        compile_source(source, compiler=compiler, cache=cache, defines=defines)


def test_relative_folders_in_flags(
    compiler: Compiler, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = set()
    for value in (1, 2):
        folder = tmp_path / str(value) / "inc"
        folder.mkdir(parents=True)
        (folder / "v.h").write_text(f"#define V {value}\n")
        monkeypatch.chdir(folder.parent)
        text = "#include <v.h>\nint x = V;\n"
        made = compile_source(text, compiler=compiler, cache=cache, flags=["-Iinc"])
        objects.add(made.object.read_bytes())
    assert len(objects) == 2


def test_architecture_for_pt_regs(compiler: Compiler, cache: Cache) -> None:
    text = TRACEPOINT + (
        "#include <bpf/bpf_tracing.h>\n"
        "long first(struct pt_regs *ctx) { return PT_REGS_PARM1(ctx); }\n"
    )
    compile_source(text, compiler=compiler, cache=cache)


def test_clangs_own_headers(compiler: Compiler, cache: Cache) -> None:
    text = "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\nuint64_t x; bool y;\n"
    compile_source(text, compiler=compiler, cache=cache)


@pytest.mark.parametrize("name", ["with space", "hash#", "dollar$", "ünïcode", "colon:", "-dash"])
def test_odd_file_names(compiler: Compiler, cache: Cache, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.h").write_text("#define X 1\n")
    source = folder / f"{name}.bpf.c"
    source.write_text(f'#include "{name}.h"\nint x = X;\n')
    os.utime(folder / f"{name}.h", (1, 1))
    first = compile_source(source, compiler=compiler, cache=cache)
    assert compile_source(source, compiler=compiler, cache=cache).object == first.object
    (folder / f"{name}.h").write_text("#define X 2\n")
    assert not compile_source(source, compiler=compiler, cache=cache).cached


def test_warnings_also_from_the_cache(
    compiler: Compiler, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.bpf.c").write_text("static int unused(void) { return 1; }\n")
    first = compile_source("w.bpf.c", compiler=compiler, cache=cache)
    again = compile_source("w.bpf.c", compiler=compiler, cache=cache)
    assert again.cached
    assert first.warnings == again.warnings
    assert first.warnings.startswith("w.bpf.c:1:12: warning: unused function 'unused'")
    monkeypatch.chdir("/")
    seen = compile_source(tmp_path / "w.bpf.c", compiler=compiler, cache=cache).warnings
    assert seen.startswith(f"{tmp_path.relative_to('/')}/w.bpf.c:1:12: warning:")


def test_text_has_a_file_and_a_name(cache: Cache) -> None:
    compiled = compile_source("int x;\n", name="count bytes", cache=cache)
    assert compiled.source.read_text() == "int x;\n"
    assert compiled.source.name.startswith("count_bytes-")
    assert compiled.source.name.endswith(".bpf.c")
    assert compiled.object.name.startswith("count_bytes-")


@pytest.mark.parametrize("macro", ["", "9x", "a b", "X=1"])
def test_a_define_that_is_no_identifier(cache: Cache, macro: str) -> None:
    with pytest.raises(CompileError, match="not a C identifier"):
        compile_source("int x;\n", defines={macro: 1}, cache=cache)


def test_a_pipe_whose_first_command_fails_has_failed(tmp_path: Path) -> None:
    (tmp_path / "first.bpf.c").write_text("int f(void) { return NOTHING; }\n")
    print_error = "echo \"{source}:1:23: error: use of undeclared identifier 'NOTHING'\" >&2"
    build = BuildCommand(f"({print_error}; exit 1) | cat > {{object}}", "{name}.o", tmp_path)
    with pytest.raises(CompileError, match=r"first.bpf.c:1: use of undeclared identifier"):
        build.run(tmp_path / "first.bpf.c")
