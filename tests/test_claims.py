"""``bpf_claim``: verdicts, a changed one fails the test, and the table at the end."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from pytest_bpf.budgets import results
from pytest_bpf.budgets.claims import Claim, combine_parts, comparison, where
from pytest_bpf.reports.claim_table import claim_lines, claims_markdown, claims_table

if TYPE_CHECKING:
    from collections.abc import Sequence

CLAIMS = """
import pytest
from pytest_bpf import UnavailableError

@pytest.mark.bpf_claim("seven is less than nine", row=2)
def test_holds(bpf_claim):
    bpf_claim(7 < 9, before=9, after=7, unit="instructions")

@pytest.mark.bpf_claim("quick and small", row=1, verdict="holds in part")
def test_in_part(bpf_claim):
    bpf_claim({"quick": True, "small": False}, "3 of 4")

@pytest.mark.bpf_claim("is free", verdict="refuted")
def test_refuted(bpf_claim):
    bpf_claim(False, "costs 300 ns | run")

@pytest.mark.bpf_claim("flies", row=3)
def test_not_measured(bpf_claim):
    raise UnavailableError("no wings on this kernel")

@pytest.mark.bpf_claim("swims", row=4)
@pytest.mark.skipif(True, reason="no water")
def test_skipped(bpf_claim):
    raise AssertionError
"""

LINES = [
    "row  claim * measured * verdict * where",
    "1 * quick and small * 3 of 4; not so: small * holds in part*",
    "2 * seven is less than nine * 9 → 7 instructions (x 0.78) * holds *",
    "3 * flies * no wings on this kernel * not measured *",
    "4 * swims * no water * not measured *",
    "  * is free * costs 300 ns | run * refuted *",
]


def session(pytester: pytest.Pytester, text: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(text)
    return pytester.runpytest_subprocess("-p", "no:randomly", *args)


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ({"": True}, "holds"),
        ({"": False}, "refuted"),
        ({"a": True, "b": True}, "holds"),
        ({"a": False, "b": False}, "refuted"),
        ({"a": True, "b": False}, "holds in part"),
    ],
)
def test_verdict_is_made_of_parts(parts: dict[str, bool], verdict: str) -> None:
    assert combine_parts(parts) == verdict


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ((374, 222, "ns"), "374 → 222 ns (x 0.59)"),
        ((153_793, 13_403, ""), "153,793 → 13,403 (x 0.087)"),
        ((0, 5, "B"), "0 → 5 B"),
        ((None, 5, "B"), ""),
    ],
)
def test_comparison_is_shown_with_its_ratio(figures: tuple[Any, ...], shown: str) -> None:
    before, after, unit = figures
    assert comparison(Claim("", before=before, after=after, unit=unit)) == shown


def claims(*found: tuple[str, str, str]) -> list[Claim]:
    return [Claim("x", 1, "holds", v, measured=m, where=w) for v, m, w in found]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        ([("holds", "1", "a"), ("holds", "2", "b")], [("1; 2", "holds", "a, b")]),
        ([("holds", "1", "a"), ("holds", "1", "b")], [("1", "holds", "a, b")]),
        ([("not measured", "no", "a"), ("holds", "1", "b")], [("1", "holds", "b")]),
        ([("not measured", "no", "a")], [("no", "not measured", "a")]),
        (
            [("holds", "1", "a"), ("refuted", "9", "b")],
            [("1", "holds", "a"), ("9", "refuted, not 'holds'", "b")],
        ),
    ],
)
def test_claim_is_one_line(
    found: Sequence[tuple[str, str, str]], lines: Sequence[tuple[str, str, str]]
) -> None:
    made = [line.cells for line in claim_lines(claims(*found))]
    assert made == [("1", "x", *line) for line in lines]


def test_table_keeps_to_the_width_and_loses_no_word() -> None:
    lines = claim_lines([Claim("many words " * 9, 1, measured="more words " * 9, where="here")])
    table = claims_table(lines, 100)
    assert max(map(len, table)) <= 100
    words = re.findall(r"\w+", " ".join(table))
    assert (words.count("many"), words.count("more"), words.count("words")) == (9, 9, 18)


def test_bars_are_escaped_in_markdown() -> None:
    assert claims_markdown(claim_lines([Claim("a | b", 1)]))[-1].startswith("| 1 | a \\| b |")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_session_ends_with_the_table(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    if workers:
        pytest.importorskip("xdist")
    result = session(pytester, CLAIMS, "--bpf-claims", "claims.md", *workers)
    result.assert_outcomes(passed=3, skipped=2)
    result.stdout.fnmatch_lines(["*bpf: what became of the claims*", *LINES])
    written = (pytester.path / "claims.md").read_text().splitlines()
    assert written[:3] == [
        "# What became of the claims",
        "",
        "| row | claim | measured | verdict | where |",
    ]
    assert written[-1] == f"|  | is free | costs 300 ns \\| run | refuted | {where()} |"
    assert len(written) == 4 + len(LINES) - 1


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_reports_have_the_claims(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    if workers:
        pytest.importorskip("xdist")
    reports = ("--bpf-report=json:claims.json", "--bpf-report=markdown:claims.md")
    session(pytester, CLAIMS, *reports, *workers).assert_outcomes(passed=3, skipped=2)
    content = json.loads((pytester.path / "claims.json").read_text())
    jsonschema.validate(content, json.loads(results.SCHEMA_FILE.read_text()))
    told = {claim["says"]: claim for claim in content["claims"]}
    assert len(told) == 5
    seven = told["seven is less than nine"]
    assert seven["test"] == "test_reports_have_the_claims.py::test_holds"
    assert (seven["before"], seven["after"], seven["verdict"]) == (9, 7, "holds")
    assert seven["ratio"] == pytest.approx(7 / 9)
    assert told["flies"]["measured"] == "no wings on this kernel"
    assert results.read(pytester.path / "claims.json").claims == tuple(content["claims"])
    shown = (pytester.path / "claims.md").read_text()
    assert f"| 1 | quick and small | 3 of 4; not so: small | holds in part | {where()} |" in shown


def test_another_verdict_fails_the_test(pytester: pytest.Pytester) -> None:
    result = session(pytester, CLAIMS.replace("7 < 9", "7 > 9"), "-k", "holds")
    result.assert_outcomes(failed=1)
    shown = "the claim 'seven is less than nine' is 'refuted' here, and not 'holds': measured 9 → 7"
    result.stdout.fnmatch_lines(
        [f"E *AssertionError: {shown} *", "2 * seven is less than * refuted, not 'holds' *"]
    )
    result.stdout.no_fnmatch_line("*raise AssertionError*")


def test_where_none_is_expected_any_verdict_will_do(pytester: pytest.Pytester) -> None:
    text = CLAIMS.replace("7 < 9", "7 > 9").replace("row=2", "row=2, verdict=None")
    result = session(pytester, text, "-k", "holds")
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r"2 +seven is .* refuted +\S"])


def test_failure_before_the_measurement_is_no_verdict(pytester: pytest.Pytester) -> None:
    result = session(pytester, CLAIMS.replace("7 < 9", "7 < 1 / 0"), "-k", "holds")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["2 * seven is less than nine * the test failed * not measured *"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"seven is less than nine", row=2', "row=2", "bpf_claim takes what is claimed, and row= "),
        ("row=2", "rwo=2", "bpf_claim takes what is claimed, and row= and verdict=: "),
        ("row=2", "row='2'", "bpf_claim(row='2'): must be a number, the claim's place"),
        ("row=2", "verdict='true'", "bpf_claim(verdict='true'): must be 'holds', 'holds in part'"),
        ("test_holds(bpf_claim)", "test_holds()", "has the marker bpf_claim, and not the fixture"),
    ],
)
def test_marker_that_cannot_be_understood_is_refused(
    pytester: pytest.Pytester, old: str, new: str, message: str
) -> None:
    result = session(pytester, CLAIMS.replace(old, new, 1))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "bpf_claim: the test did not say what it found"),
        ("bpf_claim(True)", "bpf_claim needs what was measured: before= and after=, or a text"),
    ],
)
def test_claim_without_a_finding_fails(pytester: pytest.Pytester, body: str, message: str) -> None:
    marked = f"import pytest\n@pytest.mark.bpf_claim('x')\ndef test_x(bpf_claim): {body}\n"
    result = session(pytester, marked)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{message}*"])


def test_fixture_without_the_marker_fails(pytester: pytest.Pytester) -> None:
    result = session(pytester, "def test_x(bpf_claim): bpf_claim(True, 'x')")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*bpf_claim: the test has no marker of that name*"])
