"""The HTML report in a real browser; JSON reports with tests; annotations for code hosts."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest

from pytest_bpf.budgets import results
from pytest_bpf.budgets.annotated import AnnotatedFile, AnnotatedLine
from pytest_bpf.budgets.environment import Environment
from pytest_bpf.budgets.findings import as_dict
from pytest_bpf.budgets.judge import judge
from pytest_bpf.budgets.limits import parse
from pytest_bpf.budgets.outcomes import Outcome, Place, Step
from pytest_bpf.budgets.results import Key, ResultFileError, Results
from pytest_bpf.budgets.told import CLAIM, FINDING
from pytest_bpf.costs.figures.figure import Figure
from pytest_bpf.reports import merging
from pytest_bpf.reports.annotations import GITHUB_MOST, github, gitlab
from pytest_bpf.reports.html import html
from tests.browser import requests
from tests.failing_project import TESTS, C

HERE = Environment("6.18.0", "clang 14", "x86_64", "kernel", "2 CPUs")
KERNELS = ("6.1.0", "6.18.0")
EVIL = "<script>document.title = 'owned'</script>"

FAILED = Outcome(
    "tests/test_00.py::test_7",
    "6.1.0",
    "failed",
    0.25,
    message=f"assert 0 == 5 {EVIL}",
    text=f"E  assert 0 == 5\n{EVIL}",
    state="hint: program 'count' was never attached\nprogram count (xdp)",
    path=(
        Step(2.5, 9.0, "load", "loader.load('count.bpf.c')"),
        Step(10.0, 11.5, "stimulus", f"left.udp(count=5) {EVIL}"),
        Step(11.5, 11.5, "drops", "dropped in right: 5 packets by UDP_CSUM", 1),
    ),
    places=(Place("tests/test_00.py", 12, "assert 0 == 5"), Place("count.bpf.c", 3, "100 % wrong")),
)


KEPT = ("kept/report.txt", "kept/maps/a map.json")
"""Files that were kept of the failed test."""

LATENCIES = {"latency_p50": 900.0, "latency_p99": 14_000.0, "latency_max": 52_000.0}

ANNOTATED = AnnotatedFile(
    "count.bpf.c",
    (
        AnnotatedLine(3, "int count(struct xdp_md *ctx)"),
        AnnotatedLine(5, f"\tif (x < 1) // {EVIL}", 7, 21, "7 x bpf_map_lookup_elem"),
        AnnotatedLine(6, "\t\treturn XDP_DROP;", 0),
    ),
)


def many(count: int, folder: Path | None = None) -> Results:
    """So many tests on two kernels, one of them failed, with figures and a broken limit.

    ``folder`` is where files were kept of the failed test.
    """
    tests = [
        Outcome(f"tests/test_{n // 100:02}.py::test_{n}", kernel, "passed", 0.01)
        for n in range(count)
        for kernel in KERNELS
    ]
    kept = tuple(str(folder / name) for name in KEPT) if folder else ()
    tests[14] = replace(FAILED, artifacts=kept)
    tests[17] = Outcome(tests[17].test, tests[17].kernel, "skipped", 0.0, message="needs kprobes")
    samples = Figure("run_time", "prog count", 84.0, 80.0, 90.0, "kernel", (80.0, 84.0, 90.0))
    size = Figure("verified_insns", "prog count", 23, 23, 23, "kernel")
    findings = judge(parse([], {"verified_insns": 20, "program": "count"}, "marker"), [size])
    latencies = [Figure.certain(n, "map events", v, "kernel") for n, v in LATENCIES.items()]
    figures = (samples, size, *latencies)
    return Results(
        figures={Key(HERE, FAILED.test, f.subject, f.metric): f for f in figures},
        annotated=(ANNOTATED,),
        findings=tuple(
            {"test": FAILED.test, "kernel": "6.18.0", **as_dict(finding)} for finding in findings
        ),
        tests=tuple(tests),
    )


def test_the_report_opens_filters_and_folds_without_network(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    (tmp_path / "kept/maps").mkdir(parents=True)
    for name in KEPT:
        (tmp_path / name).write_text("{}")
    text = html(many(5000, tmp_path), history=[many(20), many(20)], title="all", folder=path.parent)
    path.write_text(text)
    browser.get(path.as_uri())

    def shown() -> list[str]:
        script = "return [...document.querySelectorAll('tr[data-r]:not([hidden]) th')]"
        return list(browser.execute_script(f"{script}.map(row => row.textContent)"))

    assert browser.title == "all"
    assert len(shown()) == 5000
    texts = {e.text for e in browser.find_elements("css selector", "pre.state")}
    assert texts == {FAILED.state}

    search = browser.find_element("id", "text")
    search.send_keys("test_00 test_7")
    assert "test_7" in shown()
    assert all("test_7" in name for name in shown())
    search.clear()
    search.send_keys("test_00")
    browser.find_element("css selector", "input.result[value=passed]").send_keys(" ")  # by keyboard
    assert shown() == ["test_7", "test_8"]
    assert browser.find_element("id", "count").text == "2 of 5000 tests"

    browser.find_element("id", "close").click()
    assert not browser.find_elements("css selector", "details[open]")
    browser.find_element("css selector", "#f1 > summary").send_keys("\n")
    assert browser.find_element("css selector", "#f1 pre.state").is_displayed()

    for link in browser.find_elements("css selector", "a.file"):
        name = unquote(str(link.get_attribute("href")).removeprefix("file://"))
        assert Path(name).is_file(), name
    assert len(browser.find_elements("css selector", "a.file")) == len(KEPT)
    for link in browser.find_elements("css selector", "a[href]:not(.file)"):
        target = str(link.get_attribute("href")).partition("#")[2]
        assert browser.find_elements("id", target), target
    assert browser.find_element("css selector", "svg.bullet").get_attribute("aria-label")
    assert len(browser.find_elements("css selector", "td.plot svg")) == 5

    lanes = browser.find_elements("css selector", "svg.time g")
    assert [lane.get_attribute("class") for lane in lanes] == ["load", "stimulus", "drops"]
    assert "2 steps in 9 ms" in browser.find_element("css selector", "svg.time").get_attribute(
        "aria-label"
    )
    steps = [e.get_attribute("textContent") for e in browser.find_elements("css selector", "ol li")]
    assert steps[1] == f"11.5 ms{FAILED.path[1].text}"
    browser.find_element("id", "open").click()
    source = browser.find_element("css selector", "details.annotated")
    assert (
        source.find_element("tag name", "summary").text == "count.bpf.c: 1 of 2 lines with code ran"
    )
    rows = [e.text.split() for e in source.find_elements("css selector", "tbody tr")]
    assert rows[1][:5] == ["5", "7", "21", "100.0", "%"]
    assert rows[2][:2] == ["6", "never"]
    latencies = browser.find_element("xpath", "//h2[@id='latencies']/following-sibling::table[1]")
    assert "900 ns" in latencies.text
    assert "not measured" in latencies.text  # the 95th percentile

    assert set(requests(browser)) <= {path.as_uri(), "about:blank"}
    assert browser.get_log("browser") == []


def test_the_report_is_readable_in_dark(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html(many(20)))
    colours = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(path.as_uri())
        style = "getComputedStyle(document.body)"
        colours.append(browser.execute_script(f"return [{style}.color, {style}.backgroundColor]"))
    assert colours[0] != colours[1]
    assert all(front != back for front, back in colours)


def test_a_plot_changes_nothing_for_later_imports() -> None:
    finders = list(sys.meta_path)
    assert "<svg" in html(many(20), history=[many(20)])
    assert sys.meta_path == finders


def test_a_report_of_no_tests_says_so() -> None:
    page = html(Results())
    assert "no test ran" in page
    assert "Failed tests" not in page


def test_json_reports_keep_how_tests_went(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, many(20))
    content = json.loads(path.read_text())
    jsonschema.validate(content, json.loads(results.SCHEMA_FILE.read_text()))
    assert results.read(path) == many(20)
    for wrong, message in (
        ({"result": "lucky"}, "tests.0..result is 'lucky'"),
        ({"seconds": "long"}, "tests.0..seconds is 'long', not a number"),
        ({"tets": ""}, "tests.0. has 'tets'"),
    ):
        content["tests"][0] = {**content["tests"][1], **wrong}
        path.write_text(json.dumps(content))
        with pytest.raises(ResultFileError, match=message):
            results.read(path)


DAMAGED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"findings": [{"verdict": "fail"}]}, "findings.0. has no 'test'"),
    ({"findings": [{**dict.fromkeys(FINDING, "x")}]}, "findings.0..verdict is 'x'"),
    ({"claims": [{"says": 1}]}, "claims.0. has no 'test'"),
    ({"claims": [dict.fromkeys(CLAIM, "x")]}, "claims.0. has no 'row'"),
    ({"annotated": [{"path": "a", "lines": [{"number": "x"}]}]}, "number is 'x', not a number"),
    ({"tests": [{"path": [{"start": "x"}]}]}, "tests.0. has no 'result'"),
)


@pytest.mark.unit
@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_a_damaged_report_is_one_sentence(content: dict[str, Any], message: str) -> None:
    whole = {"format": results.FORMAT, "schema": 1, "allowed": {}, "environments": [], **content}
    with pytest.raises(ResultFileError, match=message):
        results.parse(json.dumps(whole), "r.json")


@pytest.mark.unit
def test_files_are_linked_wherever_they_are(tmp_path: Path) -> None:
    outcome = replace(FAILED, artifacts=("kept/a b.txt", "/x/javascript:y"))
    page = html(Results(tests=(outcome,)), folder=tmp_path)
    assert "a%20b.txt" in page
    assert 'href="javascript:' not in page


def test_reports_of_several_machines_are_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for kernel in ("6.1", "arm"):
        files.append(tmp_path / f"{kernel}.json")
        results.write(files[-1], Results(tests=(Outcome("a.py::b", kernel, "passed", 1.0),)))
    page, merged = tmp_path / "all.html", tmp_path / "all.json"
    names = [*map(str, files), "-o", str(page), "-o", f"json:{merged}"]
    assert merging.main(names) == 0
    assert {outcome.kernel for outcome in results.read(merged).tests} == {"6.1", "arm"}
    assert "arm" in page.read_text()
    files[0].write_text("{damaged")
    assert merging.main(names) == 2
    assert "6.1.json is not JSON" in capsys.readouterr().err
    files[0].write_text(json.dumps({"format": results.FORMAT, "schema": 99}))
    assert merging.main(names) == 2
    assert "has schema 99" in capsys.readouterr().err


def test_lines_of_several_machines_are_added_up() -> None:
    names = ("number", "text", "count", "instructions", "helpers")
    first = AnnotatedFile(
        "a.bpf.c",
        (
            AnnotatedLine(1, "a", 3, 30, "3 x bpf_redirect"),
            AnnotatedLine(2, "b", 0),
            AnnotatedLine(3, "}"),
        ),
    )
    second = AnnotatedFile(
        "a.bpf.c",
        (
            AnnotatedLine(1, "a", 4, 40, "4 x bpf_redirect, 1 x bpf_clone_redirect"),
            AnnotatedLine(2, "b", 5),
            AnnotatedLine(4, "c", 6),
        ),
    )
    (both,) = merging.merge([Results(annotated=(first,)), Results(annotated=(second,))]).annotated
    assert [tuple(getattr(line, name) for name in names) for line in both.lines] == [
        (1, "a", 7, 70, "7 x bpf_redirect, 1 x bpf_clone_redirect"),
        (2, "b", 5, None, ""),
        (3, "}", None, None, ""),
        (4, "c", 6, None, ""),
    ]
    changed = AnnotatedFile("a.bpf.c", (AnnotatedLine(1, "other", 1),))
    several = [Results(annotated=(each,)) for each in (first, changed)]
    assert merging.merge(several).annotated == (changed,)


def test_code_hosts_get_file_line_and_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(Path.cwd()))
    lines = github(many(20))
    title = "tests/test_00.py%3A%3Atest_7"
    assert lines[0] == (
        f"::error file=tests/test_00.py,line=12,title={title}::"
        "assert 0 == 5%0Aprogram 'count' was never attached"
    )
    assert lines[1].startswith(f"::error file=count.bpf.c,line=3,title={title}::100 %25 wrong")
    entries = gitlab(many(20))
    assert entries[1]["location"] == {"path": "count.bpf.c", "lines": {"begin": 3}}
    assert len({entry["fingerprint"] for entry in entries}) == len(entries)
    noisy = Results(
        tests=tuple(Outcome(f"a.py::t{n}", "6.1", "failed", 0.0, message="no") for n in range(99))
    )
    assert len(github(noisy)) == GITHUB_MOST


def test_a_refusal_of_the_verifier_is_shown_beside_the_line_of_c(
    pytester: pytest.Pytester,
) -> None:
    (pytester.path / "bad.bpf.c").write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
        'char LICENSE[] SEC("license") = "GPL";\n'
        'SEC("xdp") int bad(struct xdp_md *ctx)\n{\n'
        "    char *data = (void *)(long)ctx->data;\n"
        "    return *data;\n}\n"
    )
    (pytester.path / "test_bad.py").write_text("def test_bad(bpf):\n    bpf.load('bad.bpf.c')\n")
    result = pytester.runpytest_subprocess(
        "-q", "-p", "no:cacheprovider", "--bpf-report=github", "--bpf-artifacts=kept"
    )
    result.stdout.fnmatch_lines(["::error file=bad.bpf.c,line=7,title=test_bad.py*the verifier*"])
    log = pytester.path / "kept/test_bad.py-test_bad/programs/bad.rejected.log"
    assert "invalid access to packet" in log.read_text()


def test_without_the_extra_a_session_says_so_before_it_starts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x(): pass")
    pytester.makeconftest("import sys\nsys.modules['pygal'] = None\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--bpf-report=html:r.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: the HTML report needs jinja2 and pygal (pygal missing)*pytest-bpf?report?*"]
    )


@pytest.mark.unit
def test_packages_are_found_as_before(tmp_path: Path) -> None:
    before = {entry.name for entry in entry_points(group="pytest11")}
    (tmp_path / "report.html").write_text(html(many(50), title="all"))
    assert {entry.name for entry in entry_points(group="pytest11")} == before
    assert "bpf" in before


def test_a_session_shows_paths_files_and_lines_that_ran(pytester: pytest.Pytester) -> None:
    (pytester.path / "failing.bpf.c").write_text(C)
    (pytester.path / "test_failing.py").write_text(TESTS)
    result = pytester.runpytest_subprocess(
        *("-q", "-p", "no:cacheprovider", "-k", "wrong_verdict or off_by_one"),
        *("--bpf-cov", "--bpf-trace", "--bpf-artifacts=kept"),
        *("--bpf-report=html:out/report.html", "--bpf-report=json:results.json"),
    )
    result.assert_outcomes(failed=2)
    merged = results.read(pytester.path / "results.json")
    assert not merged.figures  # programs that count their lines are not what ships
    lines = {line.text.strip(): line.count for file in merged.annotated for line in file.lines}
    assert lines["total++;"] == 1
    assert lines["if (end - data > 100) return XDP_DROP;"] == 1
    assert lines["return n && *n > 5 ? XDP_DROP : XDP_PASS;"] in {0, None}
    page = (pytester.path / "out/report.html").read_text()
    assert "lines of failing.bpf.c: " in page
    assert '<svg class="time"' in page
    assert 'href="../kept/test_failing.py-test_wrong_verdict/report.txt"' in page
    assert '<tr class="missed">' in page or '<tr class="gap missed">' in page


def test_a_second_run_is_not_among_the_lines_that_ran(pytester: pytest.Pytester) -> None:
    (pytester.path / "failing.bpf.c").write_text(C)
    (pytester.path / "test_failing.py").write_text(TESTS)
    result = pytester.runpytest_subprocess(
        *("-q", "-p", "no:cacheprovider", "-k", "wrong_verdict", "--bpf-cov"),
        *("--bpf-rerun-traced", "--bpf-report=json:results.json"),
    )
    result.stdout.fnmatch_lines(["*ms      lines of failing.bpf.c: *"])
    merged = results.read(pytester.path / "results.json")
    lines = {line.text.strip(): line.count for file in merged.annotated for line in file.lines}
    assert lines["total++;"] == 1
