"""Lines of C in pytest-cov's reports and in ours, in sessions of a downstream repository."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from coverage import CoverageData

from pytest_bpf.budgets import results

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["pytester"]

PROJECT = Path(__file__).parent / "coverage_project"

QUIET = "[run]\nomit = */pytest_bpf/*\n"


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run the project's tests with some arguments."""
    shutil.copytree(PROJECT, pytester.path, dirs_exist_ok=True)
    (pytester.path / "pytest.ini").touch()
    (pytester.path / ".coveragerc").write_text(QUIET)
    return lambda *words: pytester.runpytest_subprocess("-p", "no:cacheprovider", *words)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_pytest_cov_lists_c_beside_python(
    run: Callable[..., pytest.RunResult], workers: str, pytester: pytest.Pytester
) -> None:
    result = run(
        *("-n", workers, "--cov", "--cov-branch", "--cov-report=term-missing"),
        *("--cov-report=xml", "--cov-report=lcov"),
    )
    assert result.ret == 0
    result.stdout.re_match_lines_random(
        [
            r"bpf/parse\.h +3 +0 +2 +0 +100%",
            r"bpf/xdp\.bpf\.c +13 +1 +6 +2 +84% +28->30, 34",
            r"tests/test_xdp\.py .* 100%",
            r"1 test measured programs as they ship, .*: tests/test_xdp.py::test_what_it_costs",
            r".*name the plugin in its configuration: plugins = ..pytest_bpf\.coverage..",
        ]
    )
    assert 'filename="bpf/xdp.bpf.c"' in (pytester.path / "coverage.xml").read_text()
    assert "DA:34,0" in (pytester.path / "coverage.lcov").read_text()


def test_the_command_coverage_reports_c_when_the_plugin_is_named(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    named = f"{QUIET}plugins = pytest_bpf.coverage\n[report]\nexclude_also = return XDP_TX\n"
    (pytester.path / ".coveragerc").write_text(named)
    told = run("--cov", "--cov-branch", "--cov-report=", "-k", "short").stdout.str()
    assert "name the plugin" not in told

    def report() -> str:
        command = (sys.executable, "-m", "coverage", "report", "-m")
        done = subprocess.run(
            command, cwd=pytester.path, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    assert re.search(r"bpf/xdp\.bpf\.c +12 +6 +6 +0 +50% +27-36\n", report()), report()
    (pytester.path / "bpf" / "xdp.bpf.c").write_text("int changed;\n")
    assert "is not what it was when its lines were counted: run the tests again" in report()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_coverage_py_keeps_which_test_ran_a_line(
    run: Callable[..., pytest.RunResult], workers: str, pytester: pytest.Pytester
) -> None:
    told = run("-n", workers, "--cov", "--cov-report=", "--cov-context=test", "--cov-branch")
    assert told.ret == 0
    data = CoverageData(str(pytester.path / ".coverage"))
    data.read()
    contexts = data.contexts_by_lineno(str(pytester.path / "bpf" / "xdp.bpf.c"))
    tests = {
        line: {name.partition("::")[2] for name in contexts[line] if "::" in name}
        for line in (24, 32, 36)
    }
    assert tests == {
        24: {"test_a_short_packet|run"},
        32: {"test_an_ipv4_packet|run"},
        36: {"test_the_path_of_another_packet|run"},
    }


@pytest.mark.usefixtures("run")
def test_the_command_coverage_counts_c_when_it_runs_pytest(pytester: pytest.Pytester) -> None:
    def coverage(*words: str) -> str:
        command = (sys.executable, "-m", "coverage", *words)
        done = subprocess.run(
            command, cwd=pytester.path, capture_output=True, text=True, check=False, timeout=300
        )
        return done.stdout + done.stderr

    tests = ("run", "--branch", "-m", "pytest", "-p", "no:cacheprovider", "-k", "short")
    told = coverage(*tests, "--bpf-cov")
    assert "coverage.py's data have no lines of C: name the plugin in its configuration" in told
    told = coverage("report")
    assert "xdp.bpf.c" not in told
    assert "Traceback" not in told
    (pytester.path / ".coveragerc").write_text(f"{QUIET}plugins = pytest_bpf.coverage\n")
    coverage(*tests)
    assert re.search(r"bpf/xdp\.bpf\.c +13 +7 +6 +0 +", coverage("report")), coverage("report")


def test_a_source_outside_of_the_project_is_named(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester, tmp_path: Path
) -> None:
    for name in ("xdp.bpf.c", "parse.h"):
        shutil.copy(pytester.path / "bpf" / name, tmp_path)
    pytester.makepyfile(f"""
        def test_it(bpf):
            bpf.load({str(tmp_path / "xdp.bpf.c")!r})
            bpf.load("#include <linux/bpf.h>\\n", name="text")
    """)
    result = run("--bpf-cov", "-k", "test_it")
    result.stdout.fnmatch_lines(
        [f"1 source outside of pytest's root directory is not reported: {tmp_path}/xdp.bpf.c"]
    )


def test_fail_under_has_the_lines_of_c(run: Callable[..., pytest.RunResult]) -> None:
    result = run("--cov", "--cov-report=", "--cov-fail-under=99")
    assert result.ret == 1
    result.stdout.re_match_lines_random([r".*total of \d+ is less than fail-under=99"])


def test_reports_without_coverage_py(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    kinds = ("lcov", "json", "html")
    files = {kind: pytester.path / "out" / f"lines.{kind}" for kind in kinds}
    result = run(
        *("-p", "no:pytest_cov", "--bpf-cov-report=term"),
        *(f"--bpf-cov-report={kind}:{path}" for kind, path in files.items()),
    )
    assert result.ret == 0
    result.stdout.re_match_lines_random(
        [r"source +lines +missed", r"bpf/xdp\.bpf\.c +13 +1 +10 +2 +92% +34"]
    )
    lcov = files["lcov"].read_text()
    assert {"FNDA:3,filter", "DA:18,3", "DA:24,1", "DA:34,0"} <= set(lcov.splitlines())
    told = json.loads(files["json"].read_text())["files"][1]
    assert told["source"] == "bpf/xdp.bpf.c"
    assert told["missing"] == [34]
    assert {"name": "filter", "line": 17, "end_line": 37, "count": 3} in told["functions"]
    assert "<tr class='missed'><td>34</td><td>0</td>" in files["html"].read_text()


BUILDS = """
import pytest

@pytest.mark.parametrize("defines", [{"NEVER": 1}, {}])
def test_it(bpf, defines):
    program = bpf.load("two.bpf.c", defines=defines).programs["two"]
    program.test_run(bytes(64))
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_builds_of_one_source_are_one_row_or_told_apart(
    run: Callable[..., pytest.RunResult], workers: str, pytester: pytest.Pytester
) -> None:
    (pytester.path / "two.bpf.c").write_text(
        '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nSEC("xdp")\n'
        "int two(struct xdp_md *ctx)\n{\n#ifdef NEVER\n\treturn 1;\n#endif\n\treturn 2;\n}\n"
    )
    pytester.makepyfile(test_two=BUILDS)
    options = ("test_two.py", "-n", workers, "--bpf-cov-report=term")
    run(*options).stdout.re_match_lines_random([r"two\.bpf\.c +2 +0 +0 +0 +100%$"])
    files = [f"--bpf-cov-report={kind}:out.{kind}" for kind in ("json", "lcov", "html")]
    reports = ("--bpf-report=html:report.html", "--bpf-report=json:report.json")
    result = run(*options, *files, *reports, "--bpf-cov-apart")
    result.stdout.re_match_lines_random(
        [r"two\.bpf\.c +1 +0 +0 +0 +100%$", r"two\.bpf\.c \[NEVER=1\] +2 +1 +0 +0 +50% +9$"]
    )
    told = json.loads((pytester.path / "out.json").read_text())["files"]
    assert [(file["source"], file["build"]) for file in told] == [
        ("two.bpf.c", ""),
        ("two.bpf.c", "NEVER=1"),
    ]
    assert "TN:NEVER_1\nSF:" in (pytester.path / "out.lcov").read_text()
    page = (pytester.path / "out.html").read_text()
    assert "<h2>two.bpf.c: 100 %</h2>" in page
    assert "<h2>two.bpf.c [NEVER=1]: 50 %</h2>" in page
    assert "<tr class='missed'><td>9</td><td>0</td>" in page
    (file,) = results.read(pytester.path / "report.json").annotated  # there the builds are one
    counts = {line.number: line.count for line in file.lines}
    assert (counts[5], counts[7], counts[9]) == (2, 1, 1)
    assert "two.bpf.c" in (pytester.path / "report.html").read_text()


def test_nothing_is_counted_when_nobody_asks(run: Callable[..., pytest.RunResult]) -> None:
    told = run("-k", "short").stdout.str()
    assert "bpf: lines" not in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bpf-cov-report=lcv:x"], "no format 'lcv'; did you mean 'lcov'?"),
        (["--bpf-cov-report=lcov"], "--bpf-cov-report=lcov: to which file? lcov:FILE"),
        (["--bpf-cov-report=term:x"], "--bpf-cov-report=term:x: term takes no file"),
        (["--bpf-cov-report=json:."], "--bpf-cov-report=json:.: . is a folder, name a file"),
        (["-o", "bpf_cov=sometimes"], "bpf_cov is auto or on or off, not 'sometimes'"),
    ],
)
def test_a_wrong_option_is_a_sentence(
    pytester: pytest.Pytester, words: list[str], message: str
) -> None:
    result = pytester.runpytest_subprocess(*words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


def test_a_report_that_cannot_be_written_is_said(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    (pytester.path / "file").touch()
    result = run("-k", "short", f"--bpf-cov-report=lcov:{pytester.path}/file/x")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bpf-cov-report=lcov: */file/x cannot be written: *"])


def test_a_report_that_cannot_be_written_any_more_is_said(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    (pytester.path / "tests" / "test_late.py").write_text(
        f"import os\ndef test_short_of_room():\n    os.mkdir({str(pytester.path / 'x')!r})\n"
    )
    result = run("-k", "short", f"--bpf-cov-report=lcov:{pytester.path}/x")
    result.stdout.fnmatch_lines(["*ERROR: --bpf-cov-report=lcov:*/x cannot be written: Is a dir*"])


def test_a_failed_test_shows_the_lines_of_its_last_run(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    (pytester.path / "tests" / "test_fails.py").write_text(
        "def test_it(bpf, bpf_lines):\n"
        '    obj = bpf.load("../bpf/xdp.bpf.c")\n'
        '    assert obj.programs["filter"].test_run(bytes(14)).retval == 2\n'
    )
    result = run("tests/test_fails.py")
    assert result.ret == 1
    result.stdout.re_match_lines(
        [
            r" +the lines of the last test_run:",
            r" +bpf/xdp\.bpf\.c:",
            r" +1 \|   24 \t\treturn XDP_DROP;",
            r" +- \|   36 \treturn XDP_DROP;",
        ]
    )


def test_lines_and_figures_are_two_tests(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    (pytester.path / "test_both.py").write_text("def test_it(bpf_lines, bpf_measure): pass\n")
    result = run("test_both.py")
    result.stdout.fnmatch_lines(["*bpf_lines counts lines, and the test also measures*"])
    assert result.ret == 1


def test_budgets_measure_all_programs_as_they_ship(run: Callable[..., pytest.RunResult]) -> None:
    told = run("-k", "short", "--bpf-cov", "--bpf-costs").stdout.str()
    assert "nothing was counted: --bpf-costs, budgets and baselines measure" in told
