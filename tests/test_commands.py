"""``pytest-bpf init``, ``new`` and ``doctor`` in repositories that are made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpf.commands import shell
from pytest_bpf.commands.new import TEMPLATES
from pytest_bpf.commands.sources import find_sources
from pytest_bpf.commands.table import COMMANDS
from pytest_bpf.compile import compile_source

LICENSE = 'char LICENSE[] SEC("license") = "GPL";\n'
HEAD = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
SOURCES = {
    "src/bpf/filter.bpf.c": (
        f'{HEAD}#include "common/limits.h"\n'
        f'SEC("xdp") int filter(struct xdp_md *ctx) {{ return LIMIT; }}\n{LICENSE}'
    ),
    "src/bpf/shape.bpf.c": (
        f'{HEAD}SEC("tc") int shape(struct __sk_buff *skb) {{ return 0; }}\n{LICENSE}'
    ),
    "src/bpf/trace_kern.c": (
        f'{HEAD}SEC("tracepoint/syscalls/sys_enter_getpid") int trace(void *ctx) {{ return 0; }}\n'
        f'SEC("tracepoint/syscalls/sys_enter_nothing") int gone(void *ctx) {{ return 0; }}\n'
        f"{LICENSE}"
    ),
    "src/bpf/wrong.bpf.c": (
        f'{HEAD}SEC("xdp") int wrong(struct xdp_md *ctx) {{ return MISSING; }}\n{LICENSE}'
    ),
    "src/bpf/agent.bpf.c": (
        f"{HEAD}#include <bpf/bpf_tracing.h>\n"
        "struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __type(key, u32); }"
        ' stacks SEC(".maps");\n'
        "struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, u32); __type(value, u32); }"
        ' seen SEC(".maps");\n'
        'SEC("xdp_edge") int edge(void *ctx) '
        "{ u32 key = 0; return bpf_map_lookup_elem(&seen, &key) ? 1 : 2; }\n"
        'SEC("fentry/dummy_read") int BPF_PROG(on_read) { return 0; }\n'
        'SEC("perf_event") int sample(void *ctx) '
        "{ return bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK) > 0; }\n"
        f"{LICENSE}"
    ),
    "include/common/limits.h": "#define LIMIT 2\n",
    "src/main.c": "int main(void) { return 0; }\n",
}


def command(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest_bpf", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def roots_own(folder: Path) -> set[str]:
    """Return what belongs to root."""
    paths = folder.rglob("*")
    return {str(path.relative_to(folder)) for path in paths if path.lstat().st_uid == 0}


@pytest.mark.unit
def test_sources_are_files_with_programs(repository: Path) -> None:
    (repository / "build").mkdir()
    shutil.copy(repository / "src/bpf/filter.bpf.c", repository / "build/filter.bpf.c")
    names = [path.name for path in find_sources(repository)]
    assert names == ["agent.bpf.c", "filter.bpf.c", "shape.bpf.c", "trace_kern.c", "wrong.bpf.c"]


@pytest.mark.bpf_requires(attach=["xdp", "tc", "tracepoint"])
def test_init_writes_tests_that_pass(repository: Path) -> None:
    for name in ('2 "x".bpf.c', "src/2 'x'.bpf.c"):  # no names for Python, and alike
        text = f'{HEAD}SEC("socket") int two(void *ctx) {{ return 0; }}\n{LICENSE}'
        (repository / name).write_text(text)
    (repository / ".gitignore").write_bytes(b"\xff")
    os.chown(repository, 1000, 1000)
    before = roots_own(repository)
    done = command("init", cwd=repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note: src/bpf/wrong.bpf.c has no test: " in done.stdout
    assert "use of undeclared identifier 'MISSING'" in done.stdout
    assert "no test_gone_attaches, because it fails: " in done.stdout
    assert "16 passed" in done.stdout
    assert "note: src/bpf/agent.bpf.c: on_read is left out (skip=): " in done.stdout
    assert "'on_read' attaches to 'dummy_read', which this kernel does not have" in done.stdout
    conftest = (repository / "tests/bpf/conftest.py").read_text()
    assert '        types={"edge": "xdp"},\n        max_entries={' in conftest
    assert '        value_size={"stacks": 1016},\n        skip=["on_read"],\n' in conftest
    assert (repository / "tests/bpf/test_source_2__x__bpf.py").exists()
    assert (repository / ".gitignore").read_bytes().startswith(b"\xff\n.bpf-cache/\n")
    assert (repository / ".pytest_cache").exists()
    assert roots_own(repository) == before  # init is run by sudo
    ini = (repository / "pytest.ini").read_text()
    assert "bpf_include_dirs = include\n" in ini
    assert (repository / "bpf-baselines/main.json").exists()
    assert "sudo -E" in (repository / ".github/workflows/bpf.yml").read_text()
    text = (repository / "tests/bpf/test_trace_kern_bpf.py").read_text()
    assert "def test_trace_attaches(trace_kern_bpf):" in text
    assert "test_gone_attaches" not in text


def test_what_init_writes_without_a_test_is_not_roots_either(tmp_path: Path) -> None:
    (tmp_path / "wrong.bpf.c").write_text(SOURCES["src/bpf/wrong.bpf.c"])
    os.chown(tmp_path, 1000, 1000)
    before = roots_own(tmp_path)
    done = command("init", cwd=tmp_path)
    assert done.returncode == 1
    assert "wrote pytest.ini" in done.stdout
    assert roots_own(tmp_path) == before


@pytest.mark.bpf_requires(attach="xdp")
def test_init_overwrites_nothing(repository: Path) -> None:
    (repository / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "-q"\n')
    (repository / ".gitignore").write_text("*.o")
    (repository / ".github/workflows").mkdir(parents=True)
    (repository / ".github/workflows/bpf.yml").write_text("mine\n")
    before = {name: (repository / name).read_text() for name in files(repository)}
    done = command("init", cwd=repository)
    assert done.returncode == 0, done.stdout + done.stderr
    line = "note: add to pytest's section of pyproject.toml: bpf_include_dirs = include"
    assert line in done.stdout
    assert "note: .github/workflows/bpf.yml is there already" in done.stdout
    assert (repository / ".gitignore").read_text().startswith("*.o\n.bpf-cache/\n")
    del before[".gitignore"]
    assert {name: (repository / name).read_text() for name in before} == before


@pytest.mark.bpf_requires(attach="xdp")
def test_a_dry_run_shows_and_writes_nothing(repository: Path) -> None:
    before = files(repository)
    done = command("init", "--dry-run", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert "--- tests/bpf/test_filter_bpf.py" in done.stdout
    assert files(repository) == before


@pytest.mark.skipif(not shutil.which("clang"), reason="there is no clang on PATH for the Makefile")
@pytest.mark.bpf_requires(attach="xdp")
def test_init_finds_the_target_of_a_makefile(tmp_path: Path) -> None:
    (tmp_path / "made.bpf.c").write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        f'SEC("socket") int made(void *ctx) {{ return FROM_MAKE; }}\n{LICENSE}'
    )
    (tmp_path / "Makefile").write_text(
        "out/%.bpf.o: %.bpf.c\n\tmkdir -p out\n"
        "\tclang -target bpf -g -O2 -I/usr/include/$(shell uname -m)-linux-gnu -DFROM_MAKE=7 "
        "-c $< -o $@\n"
    )
    done = command("init", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bpf_build_command = make out/{name}.bpf.o\n" in (tmp_path / "pytest.ini").read_text()


@pytest.mark.parametrize("words", [("init",), ("init", "nowhere")])
def test_init_without_sources_says_what_it_looks_for(tmp_path: Path, words: list[str]) -> None:
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("pytest-bpf init: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.bpf_requires(attach=["xdp", "tc", "cgroup", "tracepoint", "uprobe"])
def test_what_new_writes_passes(pytester: pytest.Pytester) -> None:
    for kind in TEMPLATES:
        done = command("new", kind, cwd=pytester.path)
        assert done.returncode == 0, done.stderr
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(passed=13)


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    assert command("new", "xdp", "edge", cwd=tmp_path).returncode == 0
    assert files(tmp_path) == {"edge.bpf.c", "test_edge.py"}
    again = command("new", "xdp", "edge", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == "pytest-bpf new: edge.bpf.c, test_edge.py is there already\n"
    assert "has others" in command("new", "tc", "a-b", cwd=tmp_path).stderr
    assert "invalid choice: 'xpd'" in command("new", "xpd", cwd=tmp_path).stderr


def test_doctor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = command("doctor", cwd=tmp_path)
    assert "no  qemu         there is no qemu-system-" in done.stdout
    assert "-> apt install qemu-system-" in done.stdout
    assert done.returncode in (0, 1)
    assert done.stderr == ""


def test_vmlinux_is_written_and_a_missing_btf_is_a_sentence(tmp_path: Path) -> None:
    done = command("vmlinux", "-o", "types.h", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "struct task_struct {" in (tmp_path / "types.h").read_text()
    done = command("vmlinux", "--btf", "nothing", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("pytest-bpf vmlinux: ")
    assert done.stderr.count("\n") == 1


def test_compile_commands_compile_the_sources(repository: Path) -> None:
    done = command("compile-commands", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert "src/bpf/wrong.bpf.c: " in done.stderr
    entries = json.loads((repository / "compile_commands.json").read_text())
    assert [Path(entry["file"]).name for entry in entries] == [
        "agent.bpf.c",
        "filter.bpf.c",
        "shape.bpf.c",
        "trace_kern.c",
        "wrong.bpf.c",
    ]
    for entry in entries[:4]:
        words = [*entry["arguments"], "-o", str(repository / "out.o")]
        subprocess.run(words, cwd=entry["directory"], check=True)
    assert command("compile-commands", cwd=repository).returncode == 0  # its own file
    (repository / "compile_commands.json").write_text("[]")
    again = command("compile-commands", cwd=repository)
    assert again.returncode == 1
    assert "is there already" in again.stderr


VERISTAT = """file_name,prog_name,verdict,duration,total_insns,total_states,peak_states
two.bpf.o,small,success,30,{small},0,0
two.bpf.o,wild,failure,30,9,0,0
"""
TWO = (
    f'{HEAD}SEC("xdp") int small(struct xdp_md *ctx) {{ return XDP_PASS; }}\n'
    'SEC("xdp") int wild(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }\n'
    f"{LICENSE}"
)


@pytest.mark.bpf_requires(attach="xdp")
def test_veristat_s_figures_become_a_test(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    compiled = compile_source(TWO, name="two").object
    shutil.copy(compiled, tmp_path / "build/two.bpf.o")
    (tmp_path / "costs.csv").write_text(VERISTAT.format(small=2))
    done = command("import", "costs.csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        "wrote test_veristat.py: 2 programs of 1 objects\n",
    )
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    passed = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in passed.stdout
    assert "is there already" in command("import", "costs.csv", cwd=tmp_path).stderr
    (tmp_path / "costs.csv").write_text(VERISTAT.format(small=1))
    (tmp_path / "test_veristat.py").unlink()
    command("import", "costs.csv", cwd=tmp_path)
    failed = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in failed.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no file_name and no prog_name"),
        ("file_name,prog_name,verdict,total_insns\n", "has no total_insns of a program"),
        (VERISTAT.format(small="many"), "costs.csv, line 2: total_insns 'many' is no whole number"),
        (VERISTAT.format(small=1), "there is no two.bpf.o in "),
    ],
)
def test_a_file_that_is_not_veristat_s(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "costs.csv").write_text(text)
    done = command("import", "costs.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    done = command("doktor", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "pytest-bpf: there is no command 'doktor'; did you mean 'doctor'?\n"


def test_bash_completes_what_the_parsers_say(tmp_path: Path) -> None:
    done = command("completion", "bash", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "completion").write_text(done.stdout)
    script = """
source ./completion
complete_words() {
    COMP_WORDS=(pytest-bpf "$@") COMP_CWORD=$#
    _shtab_pytest_bpf
    echo "${COMPREPLY[@]}"
}
complete_words ini
complete_words new up
complete_words init --dr
"""
    completed = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert completed.stdout.splitlines() == ["init", "uprobe", "--dry-run"]


def test_the_man_page_has_every_command(tmp_path: Path) -> None:
    done = command("man", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = done.stdout.replace("\\-", "-")
    assert "pytest-bpf - tests of BPF programs: what is done outside of a test" in page
    assert not [name for name in COMMANDS if f"'pytest-bpf {name}'" not in page]


def test_completion_without_shtab_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert shell.main(["bash"]) == 1
    assert "pip install 'pytest-bpf[shell]'" in capsys.readouterr().err
