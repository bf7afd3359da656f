"""What the user chose and cannot be had is a usage error, before any test runs."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

TEST = "def test(bpf): bpf.load('int x;\\n')"

CHOICES = {
    "--bpf-cc=clagn": r"--bpf-cc: the compiler 'clagn' .*did you mean 'clang",
    "--bpf-cc=false": r"--bpf-cc: .*false does not compile for BPF: exit code 1",
    "--bpf-cc=/no/such/clang": r"--bpf-cc: .*is no program that can be run",
    "-obpf_cc=clagn": r"bpf_cc: the compiler 'clagn'",
    "--bpf-cache-dir=/proc/no": r"--bpf-cache-dir: /proc/no cannot be the cache",
    "-obpf_cache_dir=/proc/no": r"bpf_cache_dir: /proc/no cannot be the cache",
    "-obpf_include_dirs=nowhere": r"bpf_include_dirs: there is no folder .*nowhere",
    "-obpf_defines=1x=3": r"bpf_defines: '1x' cannot be defined",
    "--bpf-kernel=debain": r"no kernel 'debain'",
    "--bpf-kernel=": r"a kernel has a name, and this one is empty",
    f"--bpf-kernel={'k' * 300}": r"no kernel 'k+\.\.\.': File name too long",
    f"--bpf-kernel=/{'k' * 300}": r"no kernel '/k+\.\.\.': File name too long",
    "--bpf-kernel=~nobody-here/x": r"no kernel '~nobody-here/x': Could not determine home",
    "--bpf-kernel=k\udcff": r"no kernel 'k.udcff'",
    "--bpf-kernel=socket=1": r"'socket=1': a socket is socket=HOST:PORT, with a port from",
    "--bpf-kernel=socket=a:b": r"'socket=a:b': a socket is socket=HOST:PORT",
    "--bpf-kernel=socket=a:70000": r"'socket=a:70000': a socket is socket=HOST:PORT",
    "--bpf-kernel=socket=": r"'socket=' names no host",
    "--bpf-kernel=ssh=": r"'ssh=' names no host",
    "--bpf-kernel=ssh=me//id=a//id=b": r"is no specification of execnet: duplicate key",
    "--bpf-against=nope": r"no folder nope, and no revision",
    "--bpf-budget=run_tme=5ns": r"no metric 'run_tme' .*did you mean 'run_time'",
    "--bpf-report=jsn:x": r"no format 'jsn'",
    "--bpf-cc=": r"--bpf-cc is empty: give it a value, or leave it out",
    "--bpf-libbpf=": r"--bpf-libbpf is empty",
    "--bpf-cache-dir=": r"--bpf-cache-dir is empty",
    "--bpf-artifacts=": r"--bpf-artifacts is empty",
    "-obpf_strict=yess": r"bpf_strict: .*'yess'",
    "--bpf-cpus=0": r"bpf_cpus must be at least 1, not 0",
    "-obpf_memory=0": r"bpf_memory must be at least 1, not '0'",
    "-obpf_allowed=run_tim: 5%": r"bpf_allowed: there is no metric 'run_tim' .*mean 'run_time'",
    "-obpf_allowed=run_time: 5": r"bpf_allowed: allowed change of run_time: '5' has no unit",
    "-obpf_cflags=-DX='": r"bpf_cflags: No closing quotation",
    "-obpf_kernels='": r"bpf_kernels: No closing quotation",
    "-obpf_kernel=6.1": r"no ini key 'bpf_kernel'; did you mean 'bpf_kernels' or ",
    "--bpf-cov-report=lcov:/proc/no": r"--bpf-cov-report=lcov: /proc/no cannot be written",
    "--bpf-annotate-report=json:/proc/no": r"--bpf-annotate-report=json: /proc/no cannot be",
    "--bpf-artifacts=/proc/version": r"--bpf-artifacts: /proc/version is no folder",
    "--bpf-baseline=/dev/zero": r"/dev/zero cannot be read: it is a device or a pipe",
    "-obpf_strickt=true": r"there is no ini key 'bpf_strickt'; did you mean 'bpf_strict'",
    "-obpf_cflag=-O1": r"there is no ini key 'bpf_cflag'; did you mean 'bpf_cflags'",
}


@pytest.mark.parametrize("option", CHOICES)
def test_a_choice_that_cannot_be_had(pytester: pytest.Pytester, option: str) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.re_match_lines([f"ERROR: .*{CHOICES[option]}"])


@pytest.mark.parametrize("key", ["bpf_include_dir", "bpf-include-dirs", "bpf_defnes"])
def test_a_key_of_the_ini_file_that_nobody_reads(pytester: pytest.Pytester, key: str) -> None:
    pytester.makeini(f"[pytest]\n{key} = x")
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.re_match_lines([f"ERROR: there is no ini key '{key}'; did you mean 'bpf_"])


def test_keys_and_markers_of_others_are_their_own(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nbpf_house_key = x\nmarkers =\n  bpf_require: ours\n  slow")
    pytester.makeconftest("def pytest_addoption(parser): parser.addini('bpf_house_key', 'x')")
    pytester.makepyfile(
        "import pytest\n@pytest.mark.bpf_require\n@pytest.mark.slow\ndef test(): pass"
    )
    assert pytester.runpytest_subprocess().ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("marker", "near"),
    [
        ("bpf_require(kernel='>=5')", "bpf_requires"),
        ("bpf_budgett(run_time='1ns')", "bpf_budget"),
        ("bpf_claims", "bpf_claim"),
        ("bpfrequires(cpus=2)", "bpf_requires"),
    ],
)
def test_a_marker_that_would_do_nothing(pytester: pytest.Pytester, marker: str, near: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test(): pass")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    name = marker.partition("(")[0]
    result.stderr.re_match_lines([f"ERROR: there is no marker '{name}'; did you mean '{near}'"])


def test_a_compiler_that_the_environment_chooses(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_BPF_CC", "/proc/no")
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.re_match_lines(["ERROR: PYTEST_BPF_CC: "])


def test_a_hook_that_names_no_compiler_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_bpf_compiler(config, source): return 'clagn'")
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CompileError: the compiler 'clagn'*did you mean 'clang*"])


def test_help_is_shown_all_the_same(pytester: pytest.Pytester) -> None:
    assert pytester.runpytest_subprocess("--bpf-cc=clagn", "--help").ret == 0


@pytest.mark.parametrize("where", ["/dev/full", "/dev/null"])
def test_a_report_that_cannot_be_written_fails_the_session_and_is_said(
    where: str, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile("def test(): pass")
    result = pytester.runpytest_subprocess("-q", f"--bpf-report=json:{where}")
    full = where == "/dev/full"
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if full else pytest.ExitCode.OK)
    said = "ERROR: /dev/full cannot be written: No space left*" if full else "json report: /dev/*"
    result.stdout.fnmatch_lines([said])
