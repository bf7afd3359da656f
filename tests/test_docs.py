"""Every example of README.md and docs/ is run as it is printed.

``<!-- file: NAME -->`` in front of a block makes it a file. A page's files are written together:
its tests must pass. A ``console`` block is a command with its output, where ``...`` stands for
anything; the files that it names are run by it alone. Blocks of ``sh`` and ``.text`` are for the
reader's eyes: they install, need another machine, or show what a value looks like.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pytest_bpf
from pytest_bpf import plugin
from pytest_bpf.cache import open_cache
from pytest_bpf.kernel.features import ATTACH_KINDS
from pytest_bpf.plugin import hookspecs
from pytest_bpf.plugin.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

BLOCK = re.compile(
    r"(?:^<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
SHOWN = {"sh", "text"}
PATIENCE = 300.0
"""Seconds until an example counts as hanging, on a machine that does other things too."""

CONFIGURATION = {"bpf_cc", "bpf_cflags", "bpf_include_dirs", "bpf_defines", "bpf_cache_dir"} | {
    "bpf_strict",
    "bpf_costs",
    "bpf_c_tests",
    "bpf_budget",
    "bpf_baseline",
    "bpf_allowed",
    "bpf_require_baseline",
    "bpf_reports",
    "bpf_exact",
    "bpf_kernels",
    "bpf_kernels_may_fail",
    "bpf_cpus",
    "bpf_memory",
    "bpf_hang_timeout",
    "bpf_memory_max",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``file`` is empty where none is named."""

    file: str
    language: str
    text: str

    @property
    def command(self) -> list[str]:
        """What a console block runs, with the present Python."""
        words = shlex.split(self.text.partition("\n")[0].removeprefix("$ "))
        words = words[2:] if words[:2] == ["sudo", "-E"] else words
        python = sys.executable
        tools = {"pytest": [python, "-m", "pytest"], "pytest-bpf": [python, "-m", "pytest_bpf"]}
        tools["python"] = [python]
        return [*tools[words[0]], *words[1:]]


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text())
    return [Block(b["file"] or "", b["language"], b["text"]) for b in found]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def with_examples() -> list[Path]:
    return [page for page in PAGES if any(b.file for b in blocks(page))]


@pytest.fixture(scope="session")
def cache() -> str:
    """The user's own cache: pytester gives every test another home."""
    return str(open_cache().folder)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_example_goes_unrun(page: Path) -> None:
    found = blocks(page)
    assert page.read_text().count("\n```") == 2 * len(found), "a block is not closed"
    unnamed = [b.text for b in found if b.language not in SHOWN | {"console"} and not b.file]
    assert not unnamed, "these blocks name no file, and are not console, sh or text"
    names = [b.file for b in found if b.file]
    assert len(names) == len(set(names)), "two blocks are the same file"


@pytest.mark.bpf_requires(attach=["xdp", "cgroup"])
@pytest.mark.parametrize("page", with_examples(), ids=named)
def test_examples(
    page: Path, pytester: pytest.Pytester, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_BPF_CACHE", cache)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-W error")
    for variable in ("FORCE_COLOR", "PYTEST_BPF_CC"):
        monkeypatch.delenv(variable, raising=False)
    found = blocks(page)
    for block in filter(lambda b: b.file, found):
        path = pytester.path / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    consoles = [block for block in found if block.language == "console"]
    own = {word for block in consoles for word in block.command}
    tests = {b.file for b in found if Path(b.file).match("test_*.py")} - own
    if tests:
        result = pytester.run(
            sys.executable, "-m", "pytest", "-rs", *sorted(tests), timeout=PATIENCE
        )
        assert result.ret == 0, "an example does not pass"
        assert result.parseoutcomes()["passed"] > 0
    for block in consoles:
        result = pytester.run(*block.command, timeout=PATIENCE)
        shown = "".join(f"{line.rstrip()}\n" for line in result.outlines + result.errlines)
        wanted = block.text.splitlines()[1:]
        assert re.search(pattern(wanted), shown), f"not shown:\n{block.text}"


def pattern(wanted: list[str]) -> str:
    """Return a regular expression for the lines of a console block, somewhere in the output."""
    return r"(?m)^" + "\n".join(map(line_pattern, wanted)).replace("(?:.*\n)*?\n", "(?:.*\n)*?")


def line_pattern(line: str) -> str:
    """Return a regular expression for one line.

    ``...`` alone stands for any lines, within a line for any text; times and rules may differ.
    """
    if line == "...":
        return "(?:.*\n)*?"
    escaped = re.escape(line.rstrip()).replace(r"\.\.\.", ".*")
    escaped = re.sub(r"\d+\\\.\d\ds", r"[\\d.]+s", escaped)
    return re.sub(r"={3,}", "=+", escaped) + "$"


def test_console_patterns_can_fail() -> None:
    shown = "first\n=== 2 passed in 0.12s ===\nlast\n"
    for good in (["first", "...", "last"], ["==== 2 passed in 3.45s ===="], ["f...t", "..."]):
        assert re.search(pattern(good), shown)
    for bad in (["first", "last"], ["=== 3 passed in 0.12s ==="], ["2 passed"], ["irst", "..."]):
        assert not re.search(pattern(bad), shown)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = ONLINE.sub("](", BLOCK.sub("", page.read_text()))
    for link in LINK.finditer(text):
        target = page.parent / link["path"] if link["path"] else page
        assert target.exists(), f"{link[0]} leads nowhere"
        assert not link["anchor"] or link["anchor"] in anchors(target), (
            f"{link[0]}: no such heading"
        )


ONLINE = re.compile(
    r"\]\(https://(github\.com/pytest-bpf/pytest-bpf/blob|"
    r"raw\.githubusercontent\.com/pytest-bpf/pytest-bpf)/main/"
)
"""The beginning of a link from the README, which is also read where its folder is not."""


def test_the_readme_s_links_work_on_pypi() -> None:
    readme = (ROOT / "README.md").read_text()
    relative = re.findall(r"\]\((?!https://|#)[^)]*\)", BLOCK.sub("", readme))
    assert not relative, "PyPI shows the README without the files beside it"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_exist(page: Path, pytestconfig: pytest.Config) -> None:
    for option in set(re.findall(r"--bpf-[a-z-]+", page.read_text())):
        missing = object()
        name = option.removeprefix("--").replace("-", "_")
        assert pytestconfig.getoption(name, missing) is not missing, f"there is no {option}"


def test_configuration_exists(pytestconfig: pytest.Config) -> None:
    for key in CONFIGURATION:
        assert pytestconfig.getini(key) is not None


def test_reference_is_complete() -> None:
    missing = [
        what
        for page, what in public()
        if not re.search(rf"(?<![\w-]){what}(?![\w-])", (DOCS / "reference" / page).read_text())
    ]
    assert not missing, "the reference does not name these"


def public() -> Iterator[tuple[str, str]]:
    """Yield what users may use, each with the page of the reference that must name it."""
    for name in {*pytest_bpf.__getattr__("__all__")} - {"__version__"}:
        page = "errors" if name.endswith(("Error", "Warning")) else "classes"
        yield f"{page}.md", name
    for name in plugin.__all__:
        if not name.startswith("_"):
            yield "fixtures.md", name
    for key in CONFIGURATION:
        yield "options.md", key
    for option in ("--bpf-cc", "--bpf-cache-dir", "--bpf-strict", "--bpf-costs", "--bpf-claims"):
        yield "options.md", option
    for name in vars(hookspecs):
        if name.startswith("pytest_bpf_"):
            yield "hooks.md", name
    for keyword in Requirements.__dataclass_fields__:
        yield "marker.md", keyword
    for kind in ATTACH_KINDS:
        yield "marker.md", kind


def test_messages_of_the_troubleshooting_page_exist() -> None:
    known = "\n".join(texts())
    rows = re.findall(
        r"^\| `([^`]+)` \|", (DOCS / "how-to/troubleshooting.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 30
    lost = [
        row
        for row in rows
        if not re.search(".*?".join(map(re.escape, re.split(r"\.\.\.", row))), known)
    ]
    assert not lost, "no message of ours has these words"


def texts() -> Iterator[str]:
    """Yield the texts of our modules, those in pieces whole, with ``...`` for what is filled in."""
    for path in (ROOT / "pytest_bpf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "..." for p in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value.replace("\n", " ")
