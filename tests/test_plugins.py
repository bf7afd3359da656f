"""Other plugins on other kernels: one session with all of them, here and in a machine."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cache import open_cache
from tests.sessions import run_in

if TYPE_CHECKING:
    from pytest_bpf.kernels.kernel import Kernel

pytestmark = pytest.mark.xdist_group("machines")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build/plugins"
"""Where `.ci/setup` puts the plugins that only this session has."""

PAGE = ROOT / "docs/how-to/plugins.md"

PLUGINS = {
    "pytest-cov": "the lines that ran in a machine are in the report of the session",
    "pytest-rerunfailures": "the workers' connections to `127.0.0.1` reach the controller over "
    "their own channel",
    "pytest-timeout": "without KVM Python is some twenty times slower in a machine; give it time",
    "pytest-asyncio": "",
    "anyio": "",
    "hypothesis": "it is imported before a machine is saved; failing examples are kept where there "
    "is a folder `.hypothesis`",
    "pytest-benchmark": "as with pytest-xdist, it runs the function once and measures nothing: "
    "`bpf_measure` does",
    "pytest-html": "",
    "syrupy": "a snapshot is the same on all kernels; `--snapshot-update` writes it from a machine",
    "pytest-randomly": "",
    "pytest-order": "",
    "pytest-subtests": "pytest 9 has it built in",
    "allure-pytest": "the folder of `--alluredir` is writable in machines",
}

OUTCOMES = {"pytest-timeout": "xfailed"}

OPTIONS = (
    *("--reruns=1", "--cov=.", "--cov-report=term-missing", "--randomly-seed=42"),
    *("--html=report.html", "--self-contained-html", "--alluredir=allure", "--snapshot-update"),
    *("--junitxml=junit.xml", "-v"),
)


@dataclass(frozen=True)
class Session:
    """What one session left: its output, the folder, and the outcome of each test and kernel."""

    folder: Path
    output: str
    outcomes: dict[str, list[str]]


@pytest.fixture(scope="module")
def session(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Session:
    pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    if not FOLDER.is_dir():
        pytest.skip("no build/plugins; .ci/setup makes it")
    folder = tmp_path_factory.mktemp("plugins")
    project = Path(__file__).with_name("plugins_project.py").read_text()
    (folder / "test_plugins.py").write_text(project)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error:syrupy\n")
    kernels = ("--bpf-kernel=host", f"--bpf-kernel={kernel.release}")
    environment = {
        "PYTEST_BPF_CACHE": str(open_cache().folder),
        "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{FOLDER}".lstrip(":"),
    }
    options = ("-p", "no:cacheprovider", *kernels, *OPTIONS)
    done = run_in(folder, *options, environment=environment)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    rows = re.findall(r"^test_plugins\.py::(\w+) +(\w+) +(\w+)$", output, re.MULTILINE)
    return Session(folder, output, {name: [here, there] for name, here, there in rows})


@pytest.mark.parametrize("plugin", PLUGINS)
def test_it_works_here_and_in_a_machine(session: Session, plugin: str) -> None:
    test = f"test_{plugin.replace('-', '_')}"
    assert session.outcomes[test] == [OUTCOMES.get(plugin, "passed")] * 2, session.output


def test_lines_of_both_kernels_count(session: Session) -> None:
    assert re.search(r"^test_plugins\.py +\d+ +0 +100%", session.output, re.MULTILINE), (
        session.output
    )


def test_each_kernel_tried_again_once(session: Session) -> None:
    assert len(re.findall(r"RERUN.*test_pytest_rerunfailures", session.output)) == 2


def test_reports_have_the_tests_of_all_kernels(session: Session, kernel: Kernel) -> None:
    html = (session.folder / "report.html").read_text()
    cases = {
        case.attrib["name"] for case in ET.parse(session.folder / "junit.xml").iter("testcase")
    }
    results = [json.loads(file.read_text()) for file in session.folder.glob("allure/*-result.json")]
    steps = {
        result["name"]: [step["name"] for step in result.get("steps", [])] for result in results
    }
    for name in ("host", kernel.release):
        assert f"test_pytest_html[{name}]" in html
        assert f"test_anyio[{name}]" in cases
        assert steps[f"test_allure_pytest[{name}]"] == ["one step of the test"]


def test_a_snapshot_is_the_same_on_all_kernels(session: Session) -> None:
    text = (session.folder / "__snapshots__/test_plugins.ambr").read_text()
    assert re.findall(r"^# name: (.*)$", text, re.MULTILINE) == ["test_syrupy"]
    assert re.search(r"\b1 snapshot \w+\.", session.output), session.output


def test_the_page_has_the_table() -> None:
    table = [f"| {plugin} | {note}".rstrip() + " |" for plugin, note in PLUGINS.items()]
    page = PAGE.read_text()
    rows = "\n".join(table)
    assert rows in page, f"docs/how-to/plugins.md lacks the table:\n{rows}"
