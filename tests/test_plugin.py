"""The plugin as a user meets it: whole pytest runs in processes of their own."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.nobody import AS_NOBODY

XDP = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#ifdef ANSWER
int answer = ANSWER;
#else
int answer = 0;
#endif
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} seen SEC(".maps");
SEC("xdp") int pass(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &key);
    if (count)
        (*count)++;
    return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with one BPF source in it."""
    (pytester.path / "pass.bpf.c").write_text(XDP)
    return pytester


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


def unprivileged(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest as nobody, in a copy of the project that nobody may read."""
    with tempfile.TemporaryDirectory(prefix="pytest-bpf-test-") as folder:
        shutil.copytree(pytester.path, folder, dirs_exist_ok=True)
        Path(folder).chmod(0o755)
        return pytester.run(
            *("env", f"--chdir={folder}"),
            *AS_NOBODY,
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args),
        )


ONE_RUN = """
    def test_run(bpf):
        program = bpf.load("pass.bpf.c").programs["pass"]
        assert program.test_run(bytes(64)).retval == 2
"""


def test_a_source_beside_the_test_is_compiled_loaded_and_run(project: pytest.Pytester) -> None:
    project.makepyfile(ONE_RUN)
    result = run(project)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["bpf: pytest-bpf *, kernel *, BTF, libbpf 1.*"])


def test_the_header_is_silent_when_nothing_uses_bpf(project: pytest.Pytester) -> None:
    project.makepyfile("def test_nothing(): pass")
    result = run(project)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("bpf: *")


def test_relative_paths_start_at_the_test_file(pytester: pytest.Pytester) -> None:
    folder = pytester.mkpydir("deep")
    (folder / "pass.bpf.c").write_text(XDP)
    (folder / "test_deep.py").write_text("def test_deep(bpf): bpf.load('pass.bpf.c')")
    run(pytester).assert_outcomes(passed=1)


def test_what_one_test_loaded_is_gone_in_the_next(project: pytest.Pytester) -> None:
    project.makepyfile("""
        from pytest_bpf.kernel.sys.descriptors import open_objects
        import pytest

        @pytest.mark.parametrize("ending", ["pass", "fail", "error"])
        def test_load(bpf, bpf_netns_pair, ending):
            left, right = bpf_netns_pair
            obj = bpf.load("pass.bpf.c")
            obj.programs["pass"].attach(right.iface)
            assert len(open_objects()) == 4  # program, map, .bss, link
            assert ending != "fail"
            if ending == "error":
                raise RuntimeError

        def test_gone():
            assert open_objects() == set()
    """)
    run(project).assert_outcomes(passed=2, failed=2)


def test_an_object_of_a_module_is_shared_by_its_tests(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest

        @pytest.fixture(scope="module")
        def obj(bpf_module):
            return bpf_module.load("pass.bpf.c")

        def test_one(obj):
            obj.programs["pass"].test_run(bytes(64))

        def test_two(obj):
            assert obj.maps["seen"][0] == 1
    """)
    run(project).assert_outcomes(passed=2)


# -- requirements, strictness ------------------------------------------------------------------


def test_a_missing_requirement_is_a_skip_that_names_it(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest
        @pytest.mark.bpf_requires(kernel=">=99", map_type="hash")
        def test_future(bpf): assert False
    """)
    result = run(project, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * test_*.py:*: requires kernel >=99 (this is *)"])


def test_strict_makes_it_a_failure(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest
        @pytest.mark.bpf_requires(kernel=">=99")
        def test_future(bpf): pass
    """)
    result = run(project, "--bpf-strict")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*--bpf-strict: requires kernel >=99*"])


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("kernal='>=5'", "*test_x*kernal*did you mean 'kernel'*"),
        ("map_type='ringbuff'", "*test_x*ringbuff*did you mean 'ringbuf'*"),
        ("kernel='new'", "*test_x*must be a version specifier*"),
    ],
)
def test_a_wrong_marker_is_one_sentence_before_anything_runs(
    project: pytest.Pytester, marker: str, says: str
) -> None:
    project.makepyfile(f"""
        import pytest
        def test_fine(): pass
        @pytest.mark.bpf_requires({marker})
        def test_x(): pass
    """)
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {says}"])


def test_without_privilege_the_skip_says_what_is_missing(project: pytest.Pytester) -> None:
    project.makepyfile(ONE_RUN)
    result = unprivileged(project, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["bpf: *lacks privilege*", "SKIPPED*CAP_BPF*"])
    assert unprivileged(project, "--bpf-strict").ret == pytest.ExitCode.TESTS_FAILED


def test_places_without_privilege_are_skips_too(project: pytest.Pytester) -> None:
    project.makepyfile("""
        def test_pair(bpf_netns_pair): pass
        def test_cgroup(bpf_cgroup): pass
    """)
    unprivileged(project).assert_outcomes(skipped=2)


# -- what the environment lacks ----------------------------------------------------------------


def hidden(pytester: pytest.Pytester, mount: str, *args: str) -> pytest.RunResult:
    """Run pytest in a mount namespace of its own, in which ``mount`` hid something."""
    script = f'{mount} && exec "$@"'
    return pytester.run(
        *("unshare", "--mount", "sh", "-c", script, "sh"),
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *args),
    )


def test_without_libbpf(project: pytest.Pytester) -> None:
    project.makepyfile(ONE_RUN)
    library = "$(ldconfig -p | sed -n 's/.*=> //; /libbpf.so.1$/p')"
    result = hidden(project, f"mount --bind /dev/null {library}")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["bpf: *lacks libbpf*", "SKIPPED*libbpf*install*libbpf-dev*"])


def test_with_too_old_a_libbpf(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    project.makepyfile(ONE_RUN)
    source = project.makefile(
        ".c",
        "int libbpf_major_version(void) { return 1; } int libbpf_minor_version() { return 0; }",
    )
    built = project.run("cc", "-shared", "-o", str(project.path / "libbpf.so.1"), str(source))
    assert built.ret == 0
    monkeypatch.setenv("LD_LIBRARY_PATH", str(project.path))
    result = run(project, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*is libbpf 1.0, 1.1 is needed*"])


def test_without_btf(project: pytest.Pytester) -> None:
    project.makepyfile(ONE_RUN)
    result = hidden(project, "mount -t tmpfs none /sys/kernel/btf")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["bpf: *lacks BTF*", "SKIPPED*BTF*"])


def test_with_no_compiler(project: pytest.Pytester) -> None:
    project.makepyfile(ONE_RUN)
    project.makeconftest("""
        from pytest_bpf.compile import compilers

        compilers._candidates = lambda: iter(())
    """)
    result = run(project, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["bpf: *lacks a compiler*", "SKIPPED*no compiler with the BPF*"])


def test_a_traceback_ends_where_the_test_made_the_mistake(project: pytest.Pytester) -> None:
    project.makepyfile("""
        def test_initial_value(bpf):
            bpf.load("pass.bpf.c", globals={"answer": 2 ** 40})
        def test_several_values(bpf):
            bpf.load("pass.bpf.c").globals.update({"answer": 2 ** 40})
        def test_called_by_python(bpf):
            list(map(bpf.load, ["past.bpf.c"]))
    """)
    result = run(project)
    result.assert_outcomes(failed=3)
    text = result.stdout.str()
    assert "in repr()" not in text
    places = re.findall(r"^test_\S+\.py:(\d+): \w+Error$", text, re.MULTILINE)
    assert places == ["2", "4", "6"], text


# -- leaks -------------------------------------------------------------------------------------

LEAK = """
    from pytest_bpf.kernel.sys import libbpf
    def test_leak(bpf):
        libbpf.call("bpf_map_create", 2, b"mine", 4, 4, 1, None)
    def test_clean(bpf):
        bpf.load("pass.bpf.c")
"""


def test_a_test_is_told_what_it_leaked(project: pytest.Pytester) -> None:
    project.makepyfile(LEAK)
    result = run(project)
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*LeakWarning: *::test_leak left open: map * 'mine' (array); *"])


def test_a_leak_is_an_error_when_strict(project: pytest.Pytester) -> None:
    project.makepyfile(LEAK)
    result = run(project, "--bpf-strict")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*test_leak left open: map *"])


def test_what_is_kept_for_longer_than_a_test_is_no_leak(project: pytest.Pytester) -> None:
    (project.path / "table.bpf.c").write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
        "struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4096);\n"
        '\t__type(key, __u32); __type(value, __u64); } table SEC(".maps");\n'
    )
    project.makepyfile("""
        from pytest_bpf.kernel.sys.descriptors import open_objects
        def test_loads(bpf, bpf_module):
            global obj
            obj = bpf_module.load("table.bpf.c")
            obj.maps["table"].update({number: number for number in range(4096)})
        def test_reads(bpf):
            before = open_objects()
            assert len(obj.maps["table"].items()) == 4096
            assert len(obj.maps["table"].items()) == 4096
            assert len(open_objects() - before) == 2, "the program that reads it, and its array"
        def test_still_watches(bpf, bpf_module):
            from pytest_bpf.kernel.sys import libbpf
            libbpf.call("bpf_map_create", 2, b"mine", 4, 4, 1, None)
    """)
    result = run(project, "--bpf-strict")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*test_still_watches left open: map * 'mine' (array); close *"])


# -- compiling ---------------------------------------------------------------------------------


def test_flags_folders_and_macros_from_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.mkdir("include").joinpath("ours.h").write_text("#define OURS 7\n")
    source = XDP.replace("int answer = ANSWER", '#include "ours.h"\nint answer = ANSWER + OURS')
    (pytester.path / "pass.bpf.c").write_text(source.replace("int answer = 0", "#error no macro"))
    pytester.makeini("""
        [pytest]
        bpf_include_dirs = include
        bpf_defines =
            ANSWER=MACRO
        bpf_cflags = -DMACRO=35
    """)
    pytester.makepyfile("""
        def test_answer(bpf):
            assert bpf.load("pass.bpf.c").globals["answer"] == 42
        def test_own(bpf):
            assert bpf.load("pass.bpf.c", defines={"ANSWER": 1}).globals["answer"] == 8
    """)
    run(pytester).assert_outcomes(passed=2)


def test_hooks_choose_flags_see_objects_and_add_workloads(project: pytest.Pytester) -> None:
    project.makeconftest("""
        loaded = []
        def pytest_bpf_cflags(config, source):
            return ["-DANSWER=5"]
        def pytest_bpf_compiler(config, source):
            return "clang"
        def pytest_bpf_object_loaded(request, obj):
            loaded.append((request.node.name, obj.path.name))
        def pytest_bpf_workloads(config):
            return {"twice": lambda count: loaded.extend(["work"] * count)}
    """)
    project.makepyfile("""
        import conftest
        def test_hooks(bpf, bpf_syscalls):
            assert bpf.load("pass.bpf.c").globals["answer"] == 5
            assert conftest.loaded == [("test_hooks", "pass.bpf.c")]
            bpf_syscalls.run("twice", 2)
            assert conftest.loaded[1:] == ["work", "work"]
    """)
    run(project).assert_outcomes(passed=1)


def test_a_compiler_error_is_the_first_line(project: pytest.Pytester) -> None:
    (project.path / "bad.bpf.c").write_text("int x = ;\n")
    project.makepyfile("def test_bad(bpf): bpf.load('bad.bpf.c')")
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *CompileError: bad.bpf.c:1: expected expression"])


# -- costs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("-n", "2")])
def test_costs_of_every_program(project: pytest.Pytester, how: tuple[str, ...]) -> None:
    project.makepyfile(ONE_RUN.replace("bytes(64)", "bytes(64), repeat=10"))
    result = run(project, "--bpf-costs", *how)
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines(
        [
            r".* bpf: what the programs cost .*",
            r"program +section +verified insns +stack B +jited B +runs +ns/run",
            r"pass\.bpf\.c:pass +xdp +[1-9]\d* +\d+ +[1-9]\d* +10 +\d+",
        ]
    )


def test_no_table_of_costs_without_programs(project: pytest.Pytester) -> None:
    project.makepyfile("def test_nothing(): pass")
    run(project, "--bpf-costs").stdout.no_fnmatch_line("*what the programs cost*")
