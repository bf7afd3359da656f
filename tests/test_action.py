"""The GitHub Action: its script runs, and asks for inputs and options that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACTION = ROOT / "action.yml"


def action() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(ACTION.read_text())
    return loaded


@pytest.mark.unit
def test_every_input_is_used_and_every_used_one_exists() -> None:
    used = set(re.findall(r"inputs\.([a-z]+)", ACTION.read_text()))
    assert used == set(action()["inputs"])


@pytest.mark.unit
def test_no_input_is_put_into_a_script() -> None:
    for step in action()["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), "an input in a script is run as code"


@pytest.mark.bpf_requires(attach="xdp")
def test_the_step_that_tests(tmp_path: Path) -> None:
    step = next(s for s in action()["runs"]["steps"] if s.get("name") == "Test")
    for name in ("bin", "temp/pytest-bpf/bin", "repository"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin/sudo").write_text('#!/bin/sh\n[ "$1" = -E ] && shift\nexec "$@"\n')
    (tmp_path / "bin/sudo").chmod(0o755)
    python = tmp_path / "temp/pytest-bpf/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    shutil.copytree(ROOT / "tests/downstream", tmp_path / "repository", dirs_exist_ok=True)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        **{name.upper(): str(each["default"]) for name, each in action()["inputs"].items()},
        "ARGS": "-q -k natively",
        "COVERAGE": "true",
    }
    run = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=tmp_path / "repository",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
    assert "test_limit.py" in (tmp_path / "repository/coverage.xml").read_text()
    assert "limit" in (tmp_path / "summary.md").read_text()
    environment["ARGS"] = "no_such_file.py"
    wrong = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", step["run"]],
        cwd=tmp_path / "repository",
        env=environment,
        capture_output=True,
        check=False,
    )
    assert wrong.returncode == 4


@pytest.mark.unit
def test_the_reusable_workflow_gives_what_the_action_takes() -> None:
    text = (ROOT / ".github/workflows/test.yml").read_text()
    workflow = yaml.safe_load(text)
    inputs = set(workflow[True]["workflow_call"]["inputs"])  # YAML reads "on" as true
    assert set(re.findall(r"inputs\.([a-z-]+)", text)) == inputs
    step = workflow["jobs"]["test"]["steps"][-1]
    assert set(step["with"]) <= set(action()["inputs"])


@pytest.mark.unit
def test_the_component_uses_its_inputs_and_gives_no_text_to_a_shell() -> None:
    text = (ROOT / "templates/test.yml").read_text()
    head, job = yaml.safe_load_all(text)
    assert set(re.findall(r"inputs\.([a-z]+)", text)) == set(head["spec"]["inputs"])
    (steps,) = job.values()
    assert not [line for line in (*steps["before_script"], *steps["script"]) if "[[" in line]


@pytest.mark.bpf_requires(attach="xdp")
def test_the_script_of_the_component(tmp_path: Path) -> None:
    _, job = yaml.safe_load_all((ROOT / "templates/test.yml").read_text())
    (steps,) = job.values()
    shutil.copytree(ROOT / "tests/downstream", tmp_path, dirs_exist_ok=True)
    script = "\n".join(steps["script"]).replace("/opt/venv/bin/python", sys.executable)
    environment = {**os.environ, "BPF_ARGS": "-q -k natively", "BPF_KERNELS": ""}
    run = subprocess.run(
        ["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
    assert (tmp_path / "quality.json").read_text().startswith("[")
